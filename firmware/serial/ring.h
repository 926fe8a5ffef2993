/* Bytes between an interrupt handler and the program: one writes, the other reads, and neither waits. */
#ifndef EK_RING_H
#define EK_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `head` and `tail` count bytes since the start, modulo 2^32; `size` is a power of two. */
typedef struct {
    uint8_t *bytes;
    uint32_t size;
    volatile uint32_t head, tail; /* written by the writer, by the reader */
} ek_ring;

static inline uint32_t ek_ring_held(const ek_ring *ring) { return ring->head - ring->tail; }

static inline uint32_t ek_ring_room(const ek_ring *ring) { return ring->size - ek_ring_held(ring); }

/* False, and nothing done: it is full. */
static inline bool ek_ring_put(ek_ring *ring, uint8_t byte) {
    uint32_t head = ring->head;
    if (head - ring->tail == ring->size)
        return false;
    ring->bytes[head & (ring->size - 1)] = byte;
    __atomic_store_n(&ring->head, head + 1, __ATOMIC_RELEASE); /* the byte is there before it counts */
    return true;
}

/* False: it is empty. */
static inline bool ek_ring_get(ek_ring *ring, uint8_t *byte) {
    uint32_t tail = ring->tail;
    if (__atomic_load_n(&ring->head, __ATOMIC_ACQUIRE) == tail)
        return false;
    *byte = ring->bytes[tail & (ring->size - 1)];
    __atomic_store_n(&ring->tail, tail + 1, __ATOMIC_RELEASE);
    return true;
}

#endif
