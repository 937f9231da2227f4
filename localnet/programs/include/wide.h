/*
 * Arithmetic wider than the machine: SBF multiplies 64 bits into 64, and the compiler offers nothing more.
 *
 * Values are magnitudes; signs are the caller's. Nothing here wraps in silence: what does not fit is reported.
 */
#pragma once
#include "sbf.h"

typedef struct {
    u64 high;
    u64 low;
} u128;

/* The full product of two 64-bit numbers, from four 32-bit ones. */
INLINE u128 multiply_u64(u64 left, u64 right) {
    u64 left_low = (u32)left, left_high = left >> 32, right_low = (u32)right, right_high = right >> 32;
    u64 low = left_low * right_low;
    u64 middle = left_high * right_low + (low >> 32);
    u64 carry = left_low * right_high + (u32)middle;
    return (u128){left_high * right_high + (middle >> 32) + (carry >> 32), carry << 32 | (u32)low};
}

/* value >> bits as a u64. False where it does not fit; bits below 128. */
INLINE bool shift_right_to_u64(u128 value, u64 bits, u64 *result) {
    if (bits >= 64) {
        *result = value.high >> (bits - 64);
        return true;
    }
    *result = bits == 0 ? value.low : value.high << (64 - bits) | value.low >> bits;
    return value.high >> bits == 0;
}
