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

INLINE bool is_less(u128 left, u128 right) {
    return left.high != right.high ? left.high < right.high : left.low < right.low;
}

/* left + right. False where it does not fit. */
INLINE bool add_wide(u128 left, u128 right, u128 *sum) {
    u64 carry = __builtin_add_overflow(left.low, right.low, &sum->low);
    bool overflow = __builtin_add_overflow(left.high, right.high, &sum->high);
    return !(__builtin_add_overflow(sum->high, carry, &sum->high) || overflow);
}

/* left - right. False where right is larger. */
INLINE bool subtract_wide(u128 left, u128 right, u128 *difference) {
    bool fits = !is_less(left, right);
    difference->high = left.high - right.high - (left.low < right.low);
    difference->low = left.low - right.low;
    return fits;
}

/* value * factor. False where it does not fit. */
NOINLINE bool multiply_wide(const u128 *value, u64 factor, u128 *product) {
    u128 high = multiply_u64(value->high, factor), low = multiply_u64(value->low, factor);
    product->low = low.low;
    return !__builtin_add_overflow(low.high, high.low, &product->high) && high.high == 0;
}

/* (high * 2^64 + low) / divisor; `high` below `divisor`. Knuth's algorithm D with two digits of 32 bits. */
NOINLINE u64 divide_two_words(u64 high, u64 low, u64 divisor, u64 *remainder) {
    u64 shift = (u64)__builtin_clzll(divisor);
    divisor <<= shift;
    u64 rest = shift ? high << shift | low >> (64 - shift) : high;
    u64 top = divisor >> 32, bottom = (u32)divisor, quotient = 0;
    low <<= shift;
    for (u64 step = 0; step < 2; step++, low <<= 32) {
        u64 next = low >> 32, digit = rest / top, left = rest % top;
        /* The estimate from the upper digits is at most two too large. */
        while (digit >> 32 || digit * bottom > (left << 32 | next)) {
            digit--;
            left += top;
            if (left >> 32) break;
        }
        rest = (rest << 32 | next) - digit * divisor;
        quotient = quotient << 32 | digit;
    }
    *remainder = rest >> shift;
    return quotient;
}

/* value / divisor, rounded down; `divisor` not 0. The quotient may be written over the value. */
NOINLINE void divide_by_u64(const u128 *value, u64 divisor, u128 *quotient, u64 *remainder) {
    u64 high = value->high, low = value->low;
    quotient->high = high / divisor;
    quotient->low = divide_two_words(high % divisor, low, divisor, remainder);
}

/* value / divisor, rounded down; `divisor` not 0. Bit by bit where the divisor is wider than a word. */
NOINLINE void divide_wide(const u128 *value, const u128 *divisor, u128 *quotient, u128 *remainder) {
    if (divisor->high == 0) {
        remainder->high = 0;
        divide_by_u64(value, divisor->low, quotient, &remainder->low);
        return;
    }
    /* The quotient has 64 bits at most: start with the upper word as the remainder. */
    u128 rest = {0, value->high};
    u64 result = 0;
    for (u64 bit = 64; bit-- > 0;) {
        u64 lost = rest.high >> 63; /* the 129th bit; the divisor then fits once */
        rest.high = rest.high << 1 | rest.low >> 63;
        rest.low = rest.low << 1 | (value->low >> bit & 1);
        result <<= 1;
        if (lost || !is_less(rest, *divisor)) {
            subtract_wide(rest, *divisor, &rest);
            result |= 1;
        }
    }
    *quotient = (u128){0, result};
    *remainder = rest;
}
