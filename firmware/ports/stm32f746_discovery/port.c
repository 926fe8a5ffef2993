/* ST's 32F746GDISCOVERY: a Cortex-M7 at 216 MHz, USART1 at the debugger's virtual port. Reference manual RM0385, board manual
 * UM1907. Built and linked; never run on the board. */
#include "../../cortex_m/core.h"
#include "../../cortex_m/mcu.h"
#include "qspi.h"

#define RCC(offset) EK_REGISTER(0x40023800 + (offset))
#define PWR(offset) EK_REGISTER(0x40007000 + (offset))
#define FLASH_ACR EK_REGISTER(0x40023C00)
#define GPIOA(offset) EK_REGISTER(0x40020000 + (offset))
#define GPIOB(offset) EK_REGISTER(0x40020400 + (offset))
#define USART(offset) EK_REGISTER(0x40011000 + (offset))
#define IWDG(offset) EK_REGISTER(0x40003000 + (offset))
#define SCB_ICIALLU EK_REGISTER(0xE000EF50)
#define SCB_DCISW EK_REGISTER(0xE000EF60)

enum { CR = 0x00, PLLCFGR = 0x04, CFGR = 0x08, AHB1ENR = 0x30, APB1ENR = 0x40, APB2ENR = 0x44, CSR = 0x74 };      /* RCC */
enum { CR1 = 0x00, BRR = 0x0C, ISR = 0x1C, ICR = 0x20, RDR = 0x24, TDR = 0x28 };                                   /* USART */
enum { ENABLE = 1, RX = 1 << 2, TX = 1 << 3, RX_INTERRUPT = 1 << 5, TX_INTERRUPT = 1 << 7 };                       /* CR1 */
enum { OVERRUN = 1 << 3, RECEIVED = 1 << 5, ALL_SENT = 1 << 6, ROOM = 1 << 7 };                                    /* ISR */
enum { MODER = 0x00, SPEED = 0x08, AFRL = 0x20, AFRH = 0x24 };                                                     /* GPIO */
enum { USART1_IRQ = 37, IRQS = 98 };
enum { PERIPHERAL_HZ = 108000000 }; /* APB2, which clocks USART1 */
enum { LINE_IN = 8192, LINE_OUT = 4096 };

const char ek_mcu_name[] = "stm32f746-discovery";
const uint32_t ek_mcu_clock_hz = 216000000;

static void wait_for(volatile uint32_t *at, uint32_t bits) {
    while ((*at & bits) != bits)
        ;
}

/* 25 MHz crystal / 25 * 432 / 2, which takes the over-drive of the regulator and 7 wait states. */
static void start_clock(void) {
    enum { HSE_ON = 1 << 16, HSE_READY = 1 << 17, PLL_ON = 1 << 24, PLL_READY = 1 << 25 };
    enum { FROM_HSE = 1 << 22, APB1_QUARTER = 5 << 10, APB2_HALF = 4 << 13, TO_PLL = 2, ON_PLL = 2 << 2 };
    enum { PWR_CLOCK = 1 << 28, OVER_DRIVE = 1 << 16, OVER_DRIVE_SWITCH = 1 << 17, PREFETCH = 1 << 8 };
    RCC(CR) |= HSE_ON;
    wait_for(&RCC(CR), HSE_READY);
    RCC(APB1ENR) |= PWR_CLOCK;
    RCC(PLLCFGR) = 25 | 432 << 6 | FROM_HSE | 9 << 24;
    RCC(CR) |= PLL_ON;
    PWR(0x00) |= OVER_DRIVE;
    wait_for(&PWR(0x04), OVER_DRIVE);
    PWR(0x00) |= OVER_DRIVE_SWITCH;
    wait_for(&PWR(0x04), OVER_DRIVE_SWITCH);
    FLASH_ACR = PREFETCH | 7;
    wait_for(&RCC(CR), PLL_READY);
    RCC(CFGR) = APB1_QUARTER | APB2_HALF | TO_PLL;
    wait_for(&RCC(CFGR), ON_PLL);
}

/* Both caches: nothing but the processor touches memory. 4 KB of data in 32 sets of 4 lines. */
static void start_caches(void) {
    enum { SETS = 32, WAYS = 4, INSTRUCTIONS = 1 << 17, DATA = 1 << 16 };
    SCB_ICIALLU = 0;
    for (uint32_t set = 0; set < SETS; set++)
        for (uint32_t way = 0; way < WAYS; way++)
            SCB_DCISW = way << 30 | set << 5;
    __asm volatile("dsb\n isb" ::: "memory");
    SCB_CCR |= INSTRUCTIONS | DATA;
    __asm volatile("dsb\n isb" ::: "memory");
}

void ek_mcu_start(void) {
    start_clock();
    start_caches();
    ek_qspi_start();
}

/* The transmit interrupt sends what is in the ring. It is turned off there when the ring is empty: not in between. */
static void kick(void) {
    uint32_t before = ek_interrupts_off();
    USART(CR1) |= TX_INTERRUPT;
    ek_interrupts_restore(before);
}

static bool set_baud(uint32_t baud) {
    uint32_t divider = baud ? (PERIPHERAL_HZ + baud / 2) / baud : 0;
    if (divider < 16 || divider > 0xFFFF)
        return false;
    uint32_t before = ek_interrupts_off(), control = USART(CR1);
    USART(CR1) = control & ~(uint32_t)ENABLE;
    USART(BRR) = divider;
    USART(CR1) = control;
    ek_interrupts_restore(before);
    return true;
}

static bool idle(void) { return USART(ISR) & ALL_SENT; }

static uint8_t in[LINE_IN], out[LINE_OUT];
ek_line ek_mcu_line = {
    .in = {.bytes = in, .size = LINE_IN},
    .out = {.bytes = out, .size = LINE_OUT},
    .send = kick,
    .set_baud = set_baud,
    .idle = idle,
};

static void usart_interrupt(void) {
    uint32_t status = USART(ISR);
    uint8_t byte;
    if (status & OVERRUN)
        USART(ICR) = OVERRUN; /* a byte is lost: the frame's CRC fails, and the host asks again */
    if (status & RECEIVED)
        ek_ring_put(&ek_mcu_line.in, (uint8_t)USART(RDR));
    if (!(status & ROOM))
        return;
    if (ek_ring_get(&ek_mcu_line.out, &byte))
        USART(TDR) = byte;
    else
        USART(CR1) &= ~(uint32_t)TX_INTERRUPT;
}

/* PA9 sends, PB7 receives, both as alternate function 7. */
void ek_mcu_uart_open(uint32_t baud) {
    enum { GPIO_A_AND_B = 3, USART1_CLOCK = 1 << 4, ALTERNATE = 2 };
    RCC(AHB1ENR) |= GPIO_A_AND_B;
    RCC(APB2ENR) |= USART1_CLOCK;
    GPIOA(AFRH) = (GPIOA(AFRH) & ~(0xFu << 4)) | 7u << 4;
    GPIOB(AFRL) = (GPIOB(AFRL) & ~(0xFu << 28)) | 7u << 28;
    GPIOA(SPEED) |= 3u << 18;
    GPIOA(MODER) = (GPIOA(MODER) & ~(3u << 18)) | (uint32_t)ALTERNATE << 18;
    GPIOB(MODER) = (GPIOB(MODER) & ~(3u << 14)) | (uint32_t)ALTERNATE << 14;
    ek_mcu_line.baud = baud;
    USART(CR1) = ENABLE | RX | TX | RX_INTERRUPT;
    set_baud(baud);
    ek_interrupt_enable(USART1_IRQ);
}

/* The independent watchdog: 32 kHz / 256, and no interrupt before its reset. */
void ek_mcu_watchdog_start(uint32_t ms) {
    enum { START = 0xCCCC, UNLOCK = 0x5555, BY_256 = 6, MOST = 0xFFF };
    uint32_t ticks = ms / 8;
    IWDG(0x0) = START;
    IWDG(0x0) = UNLOCK;
    IWDG(0x4) = BY_256;
    IWDG(0x8) = ticks < MOST ? ticks : MOST;
}

void ek_mcu_watchdog_feed(void) { IWDG(0x0) = 0xAAAA; }

bool ek_mcu_watchdog_bit(void) {
    enum { BY_IWDG = 1 << 29, CLEAR = 1 << 24 };
    bool bit = RCC(CSR) & BY_IWDG;
    RCC(CSR) |= CLEAR;
    return bit;
}

__attribute__((section(".vectors.device"), used)) static ek_vector *const interrupts[IRQS] = {[USART1_IRQ] = usart_interrupt};
