/* ARM MPS2 with the AN500 image (a Cortex-M7 with FPU), as QEMU has it: Application Note AN500; Cortex-M System Design Kit TRM. */
#include "../../cortex_m/core.h"
#include "../../cortex_m/mcu.h"

#define UART(offset) EK_REGISTER(0x40004000 + (offset))
#define WATCHDOG(offset) EK_REGISTER(0x40008000 + (offset))

enum { DATA = 0x0, STATE = 0x4, CTRL = 0x8, INT_CLEAR = 0xC, BAUD_DIVIDER = 0x10 };
enum { TX_FULL = 1 };                                                                 /* STATE */
enum { TX_ENABLE = 1, RX_ENABLE = 2, TX_INTERRUPT = 4, RX_INTERRUPT = 8 };            /* CTRL */
enum { RX_IRQ = 0, TX_IRQ = 1, IRQS = 32 };
enum { WATCHDOG_LOAD = 0x0, WATCHDOG_CTRL = 0x8, WATCHDOG_CLEAR = 0xC, WATCHDOG_LOCK = 0xC00, WATCHDOG_KEY = 0x1ACCE551 };
enum { LINE_IN = 8192, LINE_OUT = 4096 };

const char ek_mcu_name[] = "mps2-an500";
const uint32_t ek_mcu_clock_hz = 25000000;

void ek_mcu_start(void) {}

static void kick(void) {
    uint32_t before = ek_interrupts_off();
    uint8_t byte;
    if (!(UART(STATE) & TX_FULL) && ek_ring_get(&ek_mcu_line.out, &byte))
        UART(DATA) = byte; /* its interrupt sends the rest */
    ek_interrupts_restore(before);
}

static bool set_baud(uint32_t baud) {
    uint32_t divider = baud ? ek_mcu_clock_hz / baud : 0;
    if (divider < 16 || divider > 0xFFFFF)
        return false;
    UART(BAUD_DIVIDER) = divider;
    return true;
}

static bool idle(void) { return !(UART(STATE) & TX_FULL); }

static uint8_t in[LINE_IN], out[LINE_OUT];
ek_line ek_mcu_line = {
    .in = {.bytes = in, .size = LINE_IN},
    .out = {.bytes = out, .size = LINE_OUT},
    .send = kick,
    .set_baud = set_baud,
    .idle = idle,
};

/* A byte that does not fit is lost: its host did not mind the window, gets no answer, and asks again. Access to a register is what
 * costs time, in an emulator above all, so each interrupt makes two. */
static void receive(void) {
    UART(INT_CLEAR) = 2;
    ek_ring_put(&ek_mcu_line.in, (uint8_t)UART(DATA));
}

static void transmit(void) {
    uint8_t byte;
    UART(INT_CLEAR) = 1;
    if (ek_ring_get(&ek_mcu_line.out, &byte))
        UART(DATA) = byte;
}

void ek_mcu_uart_open(uint32_t baud) {
    ek_mcu_line.baud = baud;
    set_baud(baud);
    UART(CTRL) = TX_ENABLE | RX_ENABLE | TX_INTERRUPT | RX_INTERRUPT;
    ek_interrupt_enable(RX_IRQ);
    ek_interrupt_enable(TX_IRQ);
}

void ek_mcu_watchdog_start(uint32_t ms) {
    WATCHDOG(WATCHDOG_LOCK) = WATCHDOG_KEY;
    WATCHDOG(WATCHDOG_LOAD) = ek_mcu_clock_hz / 1000 * ms;
    WATCHDOG(WATCHDOG_CTRL) = 3; /* NMI first, then a reset */
}

void ek_mcu_watchdog_feed(void) { WATCHDOG(WATCHDOG_CLEAR) = 1; }

bool ek_mcu_watchdog_bit(void) { return false; }

__attribute__((section(".vectors.device"), used)) static ek_vector *const interrupts[IRQS] = {[RX_IRQ] = receive, [TX_IRQ] = transmit};
