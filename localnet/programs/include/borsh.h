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

INLINE void write_key(BorshWriter *writer, const Pubkey *key) {
    u8 *start = write_bytes(writer, sizeof *key);
    if (start) __builtin_memcpy(start, key, sizeof *key);
}
