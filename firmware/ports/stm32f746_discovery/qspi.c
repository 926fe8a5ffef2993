/* The board's second flash, a Micron N25Q128A13 behind the QUADSPI (RM0385, 14; the chip's data sheet). It is read in place, in
 * memory-mapped mode. To erase and to program, the peripheral leaves that mode and sends commands; it is back in it before anything
 * returns, and what the processor has of the place in its cache is dropped. Never run on the board; tests/firmware/qspi_test.c runs
 * it against a model of both.
 *
 * ST's errata of the peripheral are why its clock is not a half of the bus's (extra bytes in the FIFO), no address has bits in its last
 * two, memory-mapped mode has no timeout, and nothing reads the mapped place in the other modes (it would clear the address register):
 * a Cortex-M7 reads ahead wherever it may read, so then it may not. */
#include "qspi.h"

#include <string.h>

#include "../../cortex_m/core.h"
#include "../../cortex_m/mcu.h"

#define RCC 0x40023800u
#define GPIOB 0x40020400u
#define GPIOD 0x40020C00u
#define GPIOE 0x40021000u
#define QUADSPI 0xA0001000u
#define MPU_REGION_BASE 0xE000ED9Cu
#define MPU_REGION 0xE000EDA0u
#define MPU_CONTROL 0xE000ED94u
#define PLACE 0x90000000u

enum { SIZE_LOG2 = 24, SECTOR = 65536, PAGE = 256 };
enum { AHB3RSTR = 0x18, AHB1ENR = 0x30, AHB3ENR = 0x38, QSPI_CLOCK = 1 << 1, PORTS_B_D_E = 1 << 1 | 1 << 3 | 1 << 4 }; /* RCC */
enum { MODER = 0x00, SPEED = 0x08, AFRL = 0x20, ALTERNATE = 2, FASTEST = 3 };                                         /* GPIO */
enum { CR = 0x00, DCR = 0x04, SR = 0x08, FCR = 0x0C, DLR = 0x10, CCR = 0x14, AR = 0x18, DR = 0x20 };                  /* QUADSPI */
enum { ENABLE = 1, ABORT = 1 << 1, SAMPLE_LATE = 1 << 4, BY_3 = 2 << 24 };                                            /* CR: 72 MHz */
enum { DESELECTED_6 = 5 << 8 /* cycles: 83 ns, of 50 */, FLASH_SIZE = (SIZE_LOG2 - 1) << 16 };                        /* DCR */
enum { DONE = 1 << 1, FIFO = 1 << 2, BUSY = 1 << 5 };                                                                /* SR */
/* CCR: the instruction, an address of 24 bits and data on one line each, and what may take four. */
enum { BARE = 1 << 8, ADDRESSED = 1 << 10 | 2 << 12, DATA = 1 << 24, DATA_BY_4 = 3 << 24, READ = 1 << 26, MAPPED = 3 << 26 };
enum { DUMMY_8 = 8 << 18 }; /* as the chip has them after its reset, up to 108 MHz */

/* The chip's commands. */
enum { PAGE_PROGRAM = 0x02, WRITE_DISABLE = 0x04, READ_STATUS = 0x05, WRITE_ENABLE = 0x06, CLEAR_FLAGS = 0x50, RESET_ENABLE = 0x66,
       READ_BY_4 = 0x6B, READ_FLAGS = 0x70, RESET_CHIP = 0x99, READ_ID = 0x9F, SECTOR_ERASE = 0xD8 };
enum { WRITABLE = 1 << 1 };                                                  /* its status */
enum { READY = 1 << 7, FAILED = 1 << 5 | 1 << 4 | 1 << 3 | 1 << 1 };         /* its flags: erase, program, voltage, protection */
enum { MICRON = 0x20, N25Q_3V = 0xBA, BITS_128M = 0x18 };                    /* its identification */
enum { RESET_SPINS = 20000 }; /* 90 µs at least, of 30 that it takes */
enum { POLLS = 12000000 };    /* of 0.3 µs at least: 3.6 s, of the 3 that an erase may take which was under way */

static uint32_t get(uint32_t offset) { return ek_register_read(QUADSPI + offset); }

static void set(uint32_t offset, uint32_t value) { ek_register_write(QUADSPI + offset, value); }

static void wait_for(uint32_t flag) {
    while (!(get(SR) & flag))
        ;
}

/* ---- which of the two may happen: reads in place, or commands ---- */

/* The memory protection unit's regions 1 and 2 (startup.c has 0). 1 closes all that the QUADSPI could map; while the chip is mapped, 2
 * opens its bytes: read only, no instructions, cached. */
static void protect(bool open) {
    enum { VALID = 1 << 4, NEVER_EXECUTE = 1 << 28, READ_ONLY = 6 << 24, CACHED = 1 << 17, ALL_LOG2 = 28, ON = 1 };
    ek_register_write(MPU_REGION_BASE, PLACE | VALID | 1);
    ek_register_write(MPU_REGION, NEVER_EXECUTE | (ALL_LOG2 - 1) << 1 | ON);
    ek_register_write(MPU_REGION_BASE, PLACE | VALID | 2);
    ek_register_write(MPU_REGION, open ? NEVER_EXECUTE | READ_ONLY | CACHED | (SIZE_LOG2 - 1) << 1 | ON : 0);
    ek_barrier();
}

/* In memory-mapped mode the peripheral reads ahead until it is told to stop; of a transfer that is done its FIFO may keep it busy. */
static void stop(void) {
    if (get(SR) & BUSY) {
        set(CR, get(CR) | ABORT);
        while (get(CR) & ABORT)
            ;
    }
    set(FCR, DONE);
    while (get(SR) & BUSY)
        ;
}

static void leave_mapped_mode(void) {
    ek_barrier();
    protect(false);
    stop();
}

static void enter_mapped_mode(void) {
    set(CCR, READ_BY_4 | BARE | ADDRESSED | DUMMY_8 | DATA_BY_4 | MAPPED);
    protect(true);
}

static bool is_mapped(void) { return ek_register_read(RCC + AHB3ENR) & QSPI_CLOCK && (get(CCR) & MAPPED) == MAPPED; }

/* ---- commands ---- */

static void finish(void) {
    wait_for(DONE);
    stop();
}

static void command(uint32_t code) {
    set(CCR, code | BARE);
    finish();
}

static void read_register(uint32_t code, uint8_t *to, uint32_t size) {
    set(DLR, size - 1);
    set(CCR, code | BARE | DATA | READ);
    for (uint32_t i = 0; i < size; i++) {
        wait_for(FIFO);
        to[i] = ek_register_read_byte(QUADSPI + DR);
    }
    finish();
}

static uint8_t register_of(uint32_t code) {
    uint8_t value;
    read_register(code, &value, 1);
    return value;
}

static void erase_sector(uint32_t address) {
    set(CCR, SECTOR_ERASE | BARE | ADDRESSED);
    set(AR, address - PLACE);
    finish();
}

/* Within a page. */
static void program(uint32_t address, const uint8_t *bytes, uint32_t size) {
    set(DLR, size - 1);
    set(CCR, PAGE_PROGRAM | BARE | ADDRESSED | DATA);
    set(AR, address - PLACE);
    for (uint32_t i = 0; i < size; i++) {
        wait_for(FIFO);
        ek_register_write_byte(QUADSPI + DR, bytes[i]);
    }
    finish();
}

static bool let_write(void) {
    command(WRITE_ENABLE);
    return register_of(READ_STATUS) & WRITABLE;
}

/* A chip that is never ready again is the watchdog's business: what runs may have its Program there. */
static bool succeeded(void) {
    uint8_t flags;
    while (!((flags = register_of(READ_FLAGS)) & READY))
        ;
    if (!(flags & FAILED))
        return true;
    command(CLEAR_FLAGS);
    command(WRITE_DISABLE);
    return false;
}

/* ---- start ---- */

static void set_pin(uint32_t port, uint32_t pin, uint32_t function) {
    uint32_t alternate = port + AFRL + pin / 8 * 4, at = pin % 8 * 4;
    ek_register_write(alternate, (ek_register_read(alternate) & ~(0xFu << at)) | function << at);
    ek_register_write(port + SPEED, (ek_register_read(port + SPEED) & ~(3u << 2 * pin)) | (uint32_t)FASTEST << 2 * pin);
    ek_register_write(port + MODER, (ek_register_read(port + MODER) & ~(3u << 2 * pin)) | (uint32_t)ALTERNATE << 2 * pin);
}

static void start_peripheral(void) {
    ek_register_write(RCC + AHB1ENR, ek_register_read(RCC + AHB1ENR) | PORTS_B_D_E);
    ek_register_write(RCC + AHB3ENR, ek_register_read(RCC + AHB3ENR) | QSPI_CLOCK);
    ek_register_write(RCC + AHB3RSTR, ek_register_read(RCC + AHB3RSTR) | QSPI_CLOCK);
    ek_register_write(RCC + AHB3RSTR, ek_register_read(RCC + AHB3RSTR) & ~(uint32_t)QSPI_CLOCK);
    set_pin(GPIOB, 2, 9);  /* CLK */
    set_pin(GPIOB, 6, 10); /* NCS */
    set_pin(GPIOD, 11, 9); /* IO0 */
    set_pin(GPIOD, 12, 9); /* IO1 */
    set_pin(GPIOE, 2, 9);  /* IO2 */
    set_pin(GPIOD, 13, 9); /* IO3 */
    set(DCR, FLASH_SIZE | DESELECTED_6);
    set(CR, BY_3 | SAMPLE_LATE | ENABLE);
}

/* A reset of the processor is none of the chip's: it may be in the midst of anything, and set up in other ways. */
static void reset_chip(void) {
    command(RESET_ENABLE);
    command(RESET_CHIP);
    for (uint32_t i = 0; i < RESET_SPINS; i++)
        __asm volatile("nop");
    for (uint32_t i = 0; i < POLLS && !(register_of(READ_FLAGS) & READY); i++)
        ;
}

static bool is_the_chip(void) {
    static const uint8_t expected[] = {MICRON, N25Q_3V, BITS_128M};
    uint8_t id[sizeof expected];
    read_register(READ_ID, id, sizeof id);
    return memcmp(id, expected, sizeof id) == 0;
}

void ek_qspi_start(void) {
    enum { ON = 1, DEFAULT_ELSEWHERE = 1 << 2 };
    protect(false);
    ek_register_write(MPU_CONTROL, DEFAULT_ELSEWHERE | ON);
    ek_barrier();
    start_peripheral();
    reset_chip();
    if (is_the_chip())
        enter_mapped_mode();
}

/* ---- the flash ---- */

bool ek_qspi_has(uint32_t address) { return address >= PLACE && address - PLACE < 1u << SIZE_LOG2; }

static bool has_all(uint32_t address, uint32_t bytes) { return ek_qspi_has(address) && bytes <= (1u << SIZE_LOG2) - (address - PLACE); }

ek_area ek_qspi_sector(uint32_t address) { return (ek_area){address / SECTOR * SECTOR, is_mapped() ? SECTOR : 0}; }

bool ek_qspi_erase(uint32_t address, uint32_t bytes) {
    bool good = true;
    if (address % SECTOR || bytes % SECTOR || !has_all(address, bytes) || !is_mapped())
        return false;
    leave_mapped_mode();
    for (uint32_t at = address; good && at < address + bytes; at += SECTOR) {
        good = let_write();
        if (good) {
            erase_sector(at);
            good = succeeded();
        }
        ek_mcu_watchdog_feed();
    }
    enter_mapped_mode();
    ek_cache_forget(address, bytes);
    return good;
}

bool ek_qspi_write(uint32_t address, const void *bytes, uint32_t size) {
    const uint8_t *from = bytes;
    bool good = true;
    if (address % EK_FLASH_UNIT || size % EK_FLASH_UNIT || !has_all(address, size) || !is_mapped())
        return false;
    leave_mapped_mode();
    for (uint32_t done = 0, part; good && done < size; done += part) {
        uint32_t room = PAGE - (address + done) % PAGE;
        part = size - done < room ? size - done : room;
        good = let_write();
        if (good) {
            program(address + done, from + done, part);
            good = succeeded();
        }
    }
    enter_mapped_mode();
    ek_cache_forget(address, size);
    return good && memcmp(ek_mapped(address), bytes, size) == 0;
}
