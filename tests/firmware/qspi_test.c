/* The STM32F746-Discovery's QSPI driver against a model of what it drives: the QUADSPI's registers (RM0385, 14), the memory protection
 * and the data cache in front of it, and the flash chip behind it (N25Q128A). The model fails where the driver does what the hardware
 * would take badly: a command while one runs or the place is open for reading, a read while the chip or the peripheral is busy or in
 * another mode, phases that are not the command's, a page that is left, bits that were not erased, a write without permission, and what
 * a cache still has of a place that changed.
 *
 *     qspi_test      how often the processor was reset, and how many commands the chip was given */
#include "ports/stm32f746_discovery/qspi.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sha256.h"
#include "cortex_m/core.h"
#include "cortex_m/mcu.h"
#include "cortex_m/programs.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (command %02x, number %ld)\n", __FILE__, __LINE__, #condition, chip.code, commands); \
            exit(1); \
        } \
    } while (0)

#define PLACE 0x90000000u
#define QUADSPI 0xA0001000u
enum { CHIP = 1 << 24, SECTOR = 65536, PAGE = 256, LINE = 32, BUS_MHZ = 216 };

static long commands, accesses, reset_at = -1;
static jmp_buf reset;
static unsigned noise = 1;

static uint32_t chance(uint32_t below) { return ((noise = noise * 1664525 + 1013904223) >> 8) % below; }

/* ---- the chip ---- */

enum { IDLE, ERASES, PROGRAMS, RECOVERS };

static struct {
    uint8_t bytes[CHIP];
    uint8_t id[3];
    bool writable, may_reset;
    uint8_t failures; /* in the flags, until they are cleared */
    int under_way, wait; /* what it does, and how many looks at its flags that takes */
    uint32_t at, size;
    uint8_t page[PAGE], code;
    uint32_t dummy_cycles; /* of its fast reads */
    /* what a test asks for */
    uint8_t fail_next; /* this in the flags, in the place of the next erase or program */
    bool protected; /* it never permits to write */
    bool dirty;     /* bits that were not erased may be programmed */
} chip;

static void chip_begin(void) {
    chip.writable = chip.may_reset = false;
    chip.failures = 0;
    chip.under_way = IDLE;
    chip.dummy_cycles = 10; /* as another firmware left it */
    memcpy(chip.id, (uint8_t[]){0x20, 0xBA, 0x18}, 3);
}

/* The operation that is under way comes to its end; or a reset ends it, with bits as they were or as they were to be. */
static void chip_finish(bool cut) {
    for (uint32_t i = 0; i < chip.size; i++) {
        uint8_t *byte = &chip.bytes[chip.at + i], noise_now = (uint8_t)chance(256);
        if (chip.under_way == ERASES)
            *byte |= cut ? noise_now : 0xFF;
        if (chip.under_way == PROGRAMS)
            *byte &= (uint8_t)(chip.page[i] | (cut ? noise_now : 0));
    }
    chip.under_way = IDLE;
    chip.writable = false;
}

static uint8_t chip_flags(void) {
    if (chip.under_way != IDLE && chip.wait-- <= 0)
        chip_finish(false);
    return (uint8_t)((chip.under_way == IDLE) << 7 | chip.failures);
}

static void chip_change(int what, uint32_t at, uint32_t size) {
    CHECK(chip.writable);
    CHECK(!chip.failures); /* those of the last time were cleared */
    if (chip.fail_next) {
        chip.failures = chip.fail_next; /* and it stays writable */
        chip.fail_next = 0;
        return;
    }
    chip.under_way = what;
    chip.wait = (int)chance(6);
    chip.at = at;
    chip.size = size;
}

/* ---- registers ---- */

enum { CR, DCR, SR, FCR, DLR, CCR, AR, ABR, DR, REGISTERS = 13 };
enum { ABORT = 1 << 1 /* CR */, TCF = 1 << 1, FTF = 1 << 2, BUSY = 1 << 5 };

static struct {
    uint32_t r[REGISTERS], others[64][2]; /* address and value of all that is not the QUADSPI's */
    int count;
    bool done, busy, stopped;
    int wait;           /* looks at SR until something happens */
    uint32_t moved;     /* bytes of the command's data */
    uint8_t fifo[LINE]; /* that were sent and not yet taken */
    int held;
    uint32_t region; /* that RASR is of */
    uint32_t rasr[8], rbar[8];
} mcu;

static uint32_t *other(uint32_t address) {
    for (int i = 0; i < mcu.count; i++)
        if (mcu.others[i][0] == address)
            return &mcu.others[i][1];
    CHECK(mcu.count < 64);
    mcu.others[mcu.count][0] = address;
    mcu.others[mcu.count][1] = 0;
    return &mcu.others[mcu.count++][1];
}

/* A field of CCR. */
static uint32_t field(int at, uint32_t bits) { return mcu.r[CCR] >> at & ((1u << bits) - 1); }
static bool has_address(void) { return field(10, 2) != 0; }
static bool has_data(void) { return field(24, 2) != 0; }
static uint32_t mode(void) { return field(26, 2); }
static uint32_t length(void) { return mcu.r[DLR] + 1; }

static uint32_t pin_function(uint32_t port, uint32_t pin) {
    CHECK((*other(port) >> 2 * pin & 3) == 2); /* MODER: alternate */
    return *other(port + 0x20 + pin / 8 * 4) >> pin % 8 * 4 & 15;
}

static bool is_open(void) {
    enum { ON = 1, READ_ONLY = 6 << 24, NO_CODE = 1 << 28, CACHED = 1 << 17 };
    CHECK(*other(0xE000ED94) == 5); /* the unit is on, with the usual map elsewhere */
    CHECK(mcu.rbar[1] == PLACE && mcu.rasr[1] == (NO_CODE | 27 << 1 | ON)); /* 256 MB of no rights */
    CHECK(mcu.rbar[2] == PLACE);
    if (!(mcu.rasr[2] & ON))
        return false;
    CHECK(mcu.rasr[2] == (NO_CODE | READ_ONLY | CACHED | 23 << 1 | ON)); /* 16 MB */
    return true;
}

/* Clocks, pins, and the timing that the chip needs. */
static void check_wires(void) {
    CHECK(*other(0x40023838) & 2 && !(*other(0x40023818) & 2)); /* RCC: clocked, not in reset */
    CHECK(pin_function(0x40020400, 2) == 9 && pin_function(0x40020400, 6) == 10);
    CHECK(pin_function(0x40020C00, 11) == 9 && pin_function(0x40020C00, 12) == 9 && pin_function(0x40020C00, 13) == 9);
    CHECK(pin_function(0x40021000, 2) == 9);
    uint32_t divider = (mcu.r[CR] >> 24) + 1, deselected = (mcu.r[DCR] >> 8 & 7) + 1;
    CHECK(mcu.r[CR] & 1 && !(mcu.r[CR] & 8)); /* on, no timeout */
    CHECK(divider >= 3 && BUS_MHZ / divider <= 108);
    CHECK(deselected * divider * 1000 / BUS_MHZ >= 50); /* ns */
    CHECK((mcu.r[DCR] >> 16 & 31) == 23);
}

typedef struct {
    uint8_t code;
    bool address, data, when_busy;
    uint32_t mode;
} phases;

static const phases known[] = {
    {0x66, false, false, true, 0}, {0x99, false, false, true, 0}, {0x9F, false, true, false, 1}, {0x70, false, true, true, 1},
    {0x05, false, true, true, 1},  {0x06, false, false, false, 0}, {0x04, false, false, false, 0}, {0x50, false, false, false, 0},
    {0xD8, true, false, false, 0}, {0x02, true, true, false, 0},
};

static void start_command(void) {
    const phases *p = known;
    chip.code = (uint8_t)field(0, 8);
    commands++;
    while (p->code != chip.code)
        CHECK(++p < known + sizeof known / sizeof *known);
    CHECK(!is_open());
    check_wires();
    CHECK(field(8, 2) == 1 && has_address() == p->address && has_data() == p->data && mode() == p->mode);
    CHECK(!p->address || (field(10, 2) == 1 && field(12, 2) == 2)); /* 24 bits on one line */
    CHECK(!p->data || field(24, 2) == 1);
    CHECK(field(14, 2) == 0 && field(18, 5) == 0 && field(28, 4) == 0); /* neither alternate bytes nor dummy cycles nor other modes */
    CHECK(!p->address || mcu.r[AR] < CHIP);
    CHECK(p->when_busy || chip.under_way == IDLE);
    CHECK(!mcu.done); /* of the command before */
    chip.may_reset &= chip.code == 0x99;
    mcu.busy = true;
    mcu.moved = 0;
    mcu.held = 0;
    mcu.wait = (int)chance(4);
}

/* The last bit of it has been sent. */
static void execute(void) {
    uint32_t at = mcu.r[AR];
    switch (chip.code) {
    case 0x66:
        chip.may_reset = true;
        break;
    case 0x99:
        CHECK(chip.may_reset);
        if (chip.under_way != IDLE)
            chip_finish(true);
        chip.writable = false;
        chip.failures = 0;
        chip.dummy_cycles = 8;
        chip.under_way = RECOVERS;
        chip.size = 0;
        chip.wait = (int)chance(20);
        break;
    case 0x06:
        chip.writable = !chip.protected;
        break;
    case 0x04:
        chip.writable = false;
        break;
    case 0x50:
        chip.failures = 0;
        break;
    case 0xD8:
        chip_change(ERASES, at / SECTOR * SECTOR, SECTOR);
        break;
    case 0x02:
        CHECK(length() <= PAGE && at / PAGE == (at + length() - 1) / PAGE);
        for (uint32_t i = 0; i < length(); i++)
            CHECK(chip.dirty || chip.bytes[at + i] == 0xFF);
        chip_change(PROGRAMS, at, length());
        break;
    }
}

static uint8_t next_byte(void) {
    uint8_t status = (uint8_t)((chip.under_way != IDLE) | chip.writable << 1);
    return chip.code == 0x9F ? chip.id[mcu.moved % 3] : chip.code == 0x70 ? chip_flags() : status;
}

static bool sends(void) { return mode() == 0 && has_data(); }

/* Time passes with each look at the state. */
static void pass(void) {
    if (mcu.stopped) {
        mcu.busy = mcu.stopped = chance(3) > 0;
        return;
    }
    if (!mcu.busy || mcu.done || mode() == 3 || mcu.wait-- > 0)
        return;
    if (mcu.held > 0) {
        mcu.held--;
        chip.page[mcu.moved++] = mcu.fifo[0];
        memmove(mcu.fifo, mcu.fifo + 1, sizeof mcu.fifo - 1);
    }
    if (has_data() && mcu.moved < length())
        return;
    if (mode() == 0)
        execute();
    mcu.done = true;
    mcu.busy = chance(4) == 0; /* it may stay so until it is told to stop */
}

static uint32_t state(void) {
    pass();
    bool room = mcu.busy && mode() == 0 && mcu.held < LINE, ready = mcu.busy && mode() == 1 && mcu.wait <= 0 && mcu.moved < length();
    return (mcu.done ? TCF : 0u) | (room || ready ? FTF : 0u) | (mcu.busy ? BUSY : 0u);
}

static void configure(uint32_t value) {
    CHECK(!mcu.busy && !(mcu.r[CR] & ABORT));
    mcu.r[CCR] = value;
    if (mode() == 3) {
        check_wires();
        CHECK((value & 0xFF) == 0x6B && field(8, 2) == 1 && field(10, 2) == 1 && field(12, 2) == 2 && field(24, 2) == 3);
        CHECK(field(18, 5) == chip.dummy_cycles && field(14, 2) == 0 && field(28, 4) == 0);
        CHECK(chip.under_way == IDLE && mcu.r[AR] % 4 == 0 && !mcu.done);
        return;
    }
    if (!has_address() && !sends())
        start_command();
}

static void set_address(uint32_t value) {
    CHECK(!mcu.busy && mode() != 3);
    mcu.r[AR] = value;
    if (has_address())
        start_command(); /* of one that sends data, with its first byte; here already */
}

static void set_control(uint32_t value) {
    CHECK(value & ABORT ? (mode() == 3 || mcu.done) && !is_open() : !mcu.busy); /* no command is cut, and nothing reads on */
    mcu.r[CR] = value;
    mcu.wait = (int)chance(4);
}

static uint32_t control(void) {
    uint32_t value = mcu.r[CR];
    if (value & ABORT && mcu.wait-- <= 0) {
        mcu.r[CR] &= ~(uint32_t)ABORT;
        mcu.done = mcu.stopped = true;
    }
    return value;
}

static void count_access(void) {
    if (accesses++ == reset_at)
        longjmp(reset, 1);
}

uint32_t ek_register_read(uint32_t address) {
    count_access();
    uint32_t i = (address - QUADSPI) / 4;
    if (i >= REGISTERS)
        return *other(address);
    CHECK(*other(0x40023838) & 2);
    return i == SR ? state() : i == CR ? control() : mcu.r[i];
}

static bool sets_cache(uint32_t address, uint32_t value);

void ek_register_write(uint32_t address, uint32_t value) {
    uint32_t i = (address - QUADSPI) / 4;
    if (sets_cache(address, value))
        return;
    count_access();
    if (address == 0xE000ED9C) {
        CHECK(value & 16);
        mcu.region = value & 7;
        mcu.rbar[mcu.region] = value & ~31u;
    } else if (address == 0xE000EDA0) {
        CHECK(!(mcu.rasr[mcu.region] & 1) || !(value & 1) || mcu.rasr[mcu.region] == value);
        mcu.rasr[mcu.region] = value;
    } else if (i >= REGISTERS) {
        CHECK((address & ~0xFFFu) != 0x40020000 || *other(0x40023830) & 1u << (address - 0x40020000) / 0x400); /* a GPIO with a clock */
        CHECK((address & ~0xFFFu) != 0x40021000 || *other(0x40023830) & 1u << 4);
        *other(address) = value;
    } else if (i == CCR) {
        configure(value);
    } else if (i == AR) {
        set_address(value);
    } else if (i == CR) {
        set_control(value);
    } else if (i == FCR) {
        mcu.done &= !(value & TCF);
    } else {
        CHECK(!mcu.busy && (i == DLR || i == DCR));
        mcu.r[i] = value;
    }
}

uint8_t ek_register_read_byte(uint32_t address) {
    CHECK(address == QUADSPI + 4 * DR && state() & FTF && mode() == 1);
    uint8_t byte = next_byte();
    mcu.moved++;
    mcu.wait = (int)chance(3);
    return byte;
}

void ek_register_write_byte(uint32_t address, uint8_t value) {
    CHECK(address == QUADSPI + 4 * DR && mcu.busy && mode() == 0 && mcu.held < LINE && mcu.moved + (uint32_t)mcu.held < length());
    mcu.fifo[mcu.held++] = value;
}

/* ---- what the processor reads: lines that it keeps until it is told to forget them ---- */

static uint8_t seen[CHIP];

static bool sets_cache(uint32_t address, uint32_t value) {
    if (address != 0xE000EF5C)
        return false;
    CHECK(value % LINE == 0 && ek_qspi_has(value) && mode() == 3 && is_open());
    memcpy(seen + (value - PLACE), chip.bytes + (value - PLACE), LINE);
    return true;
}

const uint8_t *ek_mapped(uint32_t address) {
    CHECK(ek_qspi_has(address) && mode() == 3 && is_open() && chip.under_way == IDLE);
    mcu.busy = true; /* it reads ahead */
    return seen + (address - PLACE);
}

static int fed;
void ek_mcu_watchdog_feed(void) { fed++; }

/* ---- tests ---- */

static uint8_t expected[CHIP];

/* A reset of the processor, and of the peripheral with it. The chip knows nothing of it. */
static void restart(void) {
    memset(&mcu, 0, sizeof mcu);
    ek_qspi_start();
    memcpy(seen, chip.bytes, sizeof seen);
}

static void begin(void) {
    chip_begin();
    for (uint32_t i = 0; i < CHIP; i++)
        chip.bytes[i] = expected[i] = (uint8_t)(i * 7 + (i >> 8));
    restart();
}

static bool all_as_expected(void) {
    return memcmp(ek_mapped(PLACE), expected, CHIP) == 0 && memcmp(chip.bytes, expected, CHIP) == 0;
}

static bool erase(uint32_t at, uint32_t bytes) {
    memset(expected + at, 0xFF, bytes);
    return ek_qspi_erase(PLACE + at, bytes);
}

static uint8_t given[SECTOR];

static bool write_some(uint32_t at, uint32_t size) {
    for (uint32_t i = 0; i < size; i++)
        given[i] = expected[at + i] = (uint8_t)chance(256);
    return ek_qspi_write(PLACE + at, given, size);
}

static void what_is_written_is_read(void) {
    begin();
    CHECK(all_as_expected());
    CHECK(ek_qspi_sector(PLACE + SECTOR + 5).at == PLACE + SECTOR && ek_qspi_sector(PLACE + SECTOR + 5).bytes == SECTOR);
    fed = 0;
    CHECK(erase(3 * SECTOR, 4 * SECTOR) && erase(CHIP - SECTOR, SECTOR));
    CHECK(fed == 5 && all_as_expected());
    uint32_t at = 3 * SECTOR;
    for (uint32_t size = LINE; at + size <= 7 * SECTOR; at += size, size = LINE * (1 + chance(40)))
        CHECK(write_some(at, size));
    CHECK(write_some(CHIP - 3 * LINE, 3 * LINE) && all_as_expected());
}

static void what_is_not_its_is_refused(void) {
    begin();
    long before = commands;
    CHECK(!ek_qspi_has(PLACE - 1) && !ek_qspi_has(PLACE + CHIP) && ek_qspi_has(PLACE + CHIP - 1));
    CHECK(!ek_qspi_erase(PLACE + 4096, SECTOR) && !ek_qspi_erase(PLACE, 4096) && !ek_qspi_erase(PLACE + CHIP - SECTOR, 2 * SECTOR));
    CHECK(!ek_qspi_write(PLACE + 16, given, LINE) && !ek_qspi_write(PLACE, given, 16) && !ek_qspi_write(PLACE + CHIP - LINE, given, 2 * LINE));
    CHECK(commands == before && all_as_expected());
}

/* Each failure is told, leaves the flash readable, and the next time all is well. */
static void failures_are_told(void) {
    static const uint8_t flags[] = {1 << 5, 1 << 4, 1 << 3, 1 << 1};
    begin();
    CHECK(erase(0, 2 * SECTOR));
    for (size_t i = 0; i < sizeof flags; i++) {
        chip.fail_next = flags[i];
        CHECK(!ek_qspi_erase(PLACE, 2 * SECTOR) && !chip.writable && !chip.failures && all_as_expected());
        chip.fail_next = flags[i];
        CHECK(!ek_qspi_write(PLACE + SECTOR, given, 3 * PAGE) && !chip.writable && all_as_expected());
        CHECK(erase(0, SECTOR) && write_some(0, PAGE) && all_as_expected());
    }
    chip.protected = true;
    CHECK(!ek_qspi_erase(PLACE, SECTOR) && !ek_qspi_write(PLACE + SECTOR, given, LINE) && all_as_expected());
    chip.protected = false;
    chip.dirty = true; /* what cannot become what it should is noticed */
    memset(given, 0xFF, LINE);
    CHECK(expected[0] != 0xFF || expected[1] != 0xFF);
    CHECK(!ek_qspi_write(PLACE, given, LINE) && all_as_expected());
    chip.dirty = false;
}

/* The processor is reset at each look and each word to the peripheral while it erases and writes; the chip goes on with what it was at. */
static long reset_anywhere(void) {
    long resets = 0;
    volatile bool ended = false;
    begin();
    CHECK(erase(0, 4 * SECTOR));
    for (volatile long at = 0; !ended; at++, resets++) {
        accesses = 0;
        reset_at = at;
        if (!setjmp(reset)) {
            CHECK(ek_qspi_erase(PLACE + SECTOR, 2 * SECTOR));
            write_some(SECTOR + PAGE - LINE, 2 * LINE);
            ended = true;
        }
        reset_at = -1;
        restart();
        CHECK(ek_qspi_sector(PLACE).bytes == SECTOR && ek_mapped(PLACE));
        memcpy(expected + SECTOR, chip.bytes + SECTOR, 2 * SECTOR); /* whatever that left; nothing else changed */
        CHECK(memcmp(chip.bytes, expected, 4 * SECTOR) == 0 && memcmp(seen, expected, 4 * SECTOR) == 0);
    }
    CHECK(erase(SECTOR, 2 * SECTOR) && write_some(SECTOR, 5 * PAGE) && all_as_expected());
    return resets;
}

/* ---- Programs in it, as the firmware has them ---- */

enum { SLOT = 4 << 20, PROGRAM = SECTOR + 5000, CHUNK = 1900 };

static ek_status missing(const char *path, ek_file *file, ek_error *error) {
    (void)file;
    return ek_fail(error, EK_NOT_FOUND, "%s", path);
}

static ek_platform platform;

static void join(void) {
    static ek_flash flash = {.memory = seen, .address = PLACE, .program = {{PLACE, SLOT}, {PLACE + SLOT, SLOT}},
                             .sector = ek_qspi_sector, .erase = ek_qspi_erase, .write = ek_qspi_write};
    platform = (ek_platform){.map = missing};
    ek_programs_join(&platform, &flash);
}

static bool is_there(const char *name, const uint8_t *bytes) {
    ek_file file;
    ek_error error;
    if (platform.map(name, &file, &error) != EK_OK)
        return false;
    CHECK(ek_mapped(PLACE)); /* it is read in place */
    bool same = file.size == PROGRAM && memcmp(file.bytes, bytes, PROGRAM) == 0;
    platform.unmap(&file);
    return same;
}

/* Returns how much of it was there. */
static uint64_t push(const char *name, const uint8_t *bytes, volatile uint64_t *have) {
    ek_new_file file;
    ek_error error;
    uint8_t digest[32];
    ek_sha256_of(bytes, PROGRAM, digest);
    CHECK(platform.receive(&file, name, PROGRAM, digest, &error) == EK_OK);
    uint64_t first = file.have;
    for (*have = first; file.have < PROGRAM; *have = file.have) {
        size_t left = PROGRAM - (size_t)file.have;
        CHECK(platform.write(&file, bytes + file.have, left < CHUNK ? left : CHUNK, &error) == EK_OK);
    }
    CHECK(platform.commit(&file, &error) == EK_OK);
    return first;
}

/* One comes while another one is loaded, and the processor is reset in its midst: the loaded one is whole throughout, the other one
 * goes on. */
static void programs_come(void) {
    static uint8_t old[PROGRAM], new[PROGRAM];
    volatile uint64_t have = 0;
    volatile bool ended = false;
    for (size_t i = 0; i < PROGRAM; i++)
        old[i] = (uint8_t)chance(256), new[i] = (uint8_t)chance(256);
    for (volatile long at = 300; !ended; at += 60000) {
        begin();
        join();
        push("old.ekp", old, &have);
        ek_file loaded;
        ek_error error;
        CHECK(platform.map("old.ekp", &loaded, &error) == EK_OK);
        accesses = 0;
        have = 0;
        reset_at = at;
        if (!setjmp(reset)) {
            push("new.ekp", new, &have);
            ended = true;
        }
        reset_at = -1;
        restart();
        join();
        CHECK(is_there("old.ekp", old) && is_there("new.ekp", new) == ended);
        uint64_t had = have, first = ended ? had : push("new.ekp", new, &have);
        CHECK(first + 2 * LINE > had);
        CHECK(is_there("old.ekp", old) && is_there("new.ekp", new));
    }
}

/* Another chip, or none: no sectors, and nothing is done. */
static void another_chip(void) {
    static const uint8_t ids[][3] = {{0xEF, 0x40, 0x18}, {0xFF, 0xFF, 0xFF}, {0x20, 0xBA, 0x19}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        begin();
        memcpy(chip.id, ids[i], 3);
        restart();
        long before = commands;
        CHECK(ek_qspi_sector(PLACE).bytes == 0);
        CHECK(!ek_qspi_erase(PLACE, SECTOR) && !ek_qspi_write(PLACE, given, LINE) && commands == before);
    }
    memset(&mcu, 0, sizeof mcu); /* nor before it was started: the bootloader never does */
    CHECK(ek_qspi_sector(PLACE).bytes == 0);
}

int main(void) {
    what_is_written_is_read();
    what_is_not_its_is_refused();
    failures_are_told();
    programs_come();
    another_chip();
    long resets = reset_anywhere();
    printf("%ld resets, %ld commands\n", resets, commands);
    return 0;
}
