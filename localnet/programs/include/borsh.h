/*
 * Borsh for layouts whose length depends on their values: options, strings, vectors.
 *
 * A layout of fixed length is a PACKED struct instead and needs none of this. Reader and writer remember the first
 * failure, so that a caller checks `failed` once, after the last field.
 */
#pragma once
#include "sbf.h"

typedef struct {
    const u8 *at;
    const u8 *end;
    bool failed;
} BorshReader;

typedef struct {
    u8 *at;
    u8 *end;
    bool failed;
} BorshWriter;

/* The next `len` bytes, or NULL where fewer are left. */
INLINE const u8 *read_bytes(BorshReader *reader, u64 len) {
    if (reader->failed || (u64)(reader->end - reader->at) < len) {
        reader->failed = true;
        return NULL;
    }
    const u8 *start = reader->at;
    reader->at += len;
    return start;
}

INLINE u8 read_u8(BorshReader *reader) {
    const u8 *start = read_bytes(reader, 1);
    return start ? *start : 0;
}

INLINE u64 read_u64(BorshReader *reader) {
    const u8 *start = read_bytes(reader, 8);
    return start ? load_u64(start) : 0;
}

/* Little-endian, as load_u64: the length before a vector's or a string's bytes. */
INLINE u32 read_u32(BorshReader *reader) {
    const u8 *start = read_bytes(reader, 4);
    u32 value = 0;
    if (start) __builtin_memcpy(&value, start, sizeof value);
    return value;
}

INLINE u16 read_u16(BorshReader *reader) {
    const u8 *start = read_bytes(reader, 2);
    return start ? (u16)(start[0] | start[1] << 8) : 0;
}

INLINE void read_key(BorshReader *reader, Pubkey *key) {
    const u8 *start = read_bytes(reader, sizeof *key);
    if (start) __builtin_memcpy(key, start, sizeof *key);
}

/* A bool, or the tag of an option: borsh knows 0 and 1 and refuses the rest. */
INLINE bool read_bool(BorshReader *reader) {
    u8 value = read_u8(reader);
    if (value > 1) reader->failed = true;
    return value == 1;
}

/*
 * A vector of keys, where it lies; `count` is 0 where it is not whole. How many are too many is the caller's to say.
 * The length cannot wrap: it is a u32, times 32.
 */
INLINE const Pubkey *read_keys(BorshReader *reader, u64 *count) {
    u64 declared = read_u32(reader);
    const u8 *start = read_bytes(reader, declared * sizeof(Pubkey));
    *count = start ? declared : 0;
    return (const Pubkey *)start;
}

/* Whether the bytes are UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
NOINLINE bool is_utf8(const u8 *at, u64 len) {
    const u8 *end = at + len;
    while (at < end) {
        u8 lead = *at++;
        if (lead < 0x80) continue;
        u64 more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
        if (lead < 0xc2 || lead > 0xf4 || (u64)(end - at) < more) return false;
        /* The first byte after some leads has a narrower range than 80..bf. */
        u8 lowest = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        u8 highest = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        for (; more; more--, at++, lowest = 0x80, highest = 0xbf)
            if (*at < lowest || *at > highest) return false;
    }
    return true;
}

/* A string, where it lies; empty where it is not whole or not UTF-8. How long is too long is the caller's to say. */
INLINE Slice read_string(BorshReader *reader) {
    u64 len = read_u32(reader);
    const u8 *start = read_bytes(reader, len);
    if (!start || !is_utf8(start, len)) {
        reader->failed = true;
        return (Slice){NULL, 0};
    }
    return (Slice){start, len};
}

INLINE u8 *write_bytes(BorshWriter *writer, u64 len) {
    if (writer->failed || (u64)(writer->end - writer->at) < len) {
        writer->failed = true;
        return NULL;
    }
    u8 *start = writer->at;
    writer->at += len;
    return start;
}

INLINE void write_u8(BorshWriter *writer, u8 value) {
    u8 *start = write_bytes(writer, 1);
    if (start) *start = value;
}

INLINE void write_u64(BorshWriter *writer, u64 value) {
    u8 *start = write_bytes(writer, 8);
    if (start) store_u64(start, value);
}

INLINE void write_u32(BorshWriter *writer, u32 value) {
    u8 *start = write_bytes(writer, 4);
    if (start) __builtin_memcpy(start, &value, sizeof value);
}

INLINE void write_u16(BorshWriter *writer, u16 value) {
    u8 *start = write_bytes(writer, 2);
    if (start) __builtin_memcpy(start, &value, sizeof value);
}

INLINE void write_key(BorshWriter *writer, const Pubkey *key) {
    u8 *start = write_bytes(writer, sizeof *key);
    if (start) __builtin_memcpy(start, key, sizeof *key);
}

/* The counterpart of read_keys. The keys must not lie where they are written to. */
INLINE void write_keys(BorshWriter *writer, const Pubkey *keys, u64 count) {
    write_u32(writer, (u32)count);
    for (u64 i = 0; i < count; i++) write_key(writer, &keys[i]);
}

/* The counterpart of read_string. Strings here are short: a loop, and no call. */
INLINE void write_string(BorshWriter *writer, Slice text) {
    write_u32(writer, (u32)text.len);
    u8 *start = write_bytes(writer, text.len);
    for (u64 i = 0; start && i < text.len; i++) start[i] = ((const u8 *)text.start)[i];
}
