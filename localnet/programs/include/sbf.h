/*
 * The machine a Solana program runs on: integer types, the syscalls, and the shapes they read and write.
 *
 * Freestanding C11, nothing from libc. The compiler's SBF back end sets the rules of all support code here:
 * at most five arguments, no struct passed or returned by value unless inlined, 4096 bytes of stack a function,
 * no writable globals, no signed division, no 128-bit multiplication. What a struct means to Anchor begins in anchor.h.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int i32;
typedef signed long long i64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)
#define U64_MAX 0xffffffffffffffffULL

/* Support code is shared by several programs: what one of them leaves unused is no mistake. */
#define INLINE static inline __attribute__((always_inline, unused))
#define NOINLINE static __attribute__((noinline, unused))
#define PACKED __attribute__((packed)) /* borsh has no padding */
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef struct {
    u8 bytes[32];
} Pubkey;

/* A piece of memory; the syscalls use the same pair for log data, for one seed, and for one signer's list of seeds. */
typedef struct {
    const void *start;
    u64 len;
} Slice;

typedef struct {
    const Pubkey *key;
    bool is_writable;
    bool is_signer;
} AccountMeta;

typedef struct {
    const Pubkey *program_id;
    const AccountMeta *accounts;
    u64 account_count;
    const u8 *data;
    u64 data_len;
} Instruction;

/* As the runtime's C interface lays it out. `input_len` is the length on entry: after a CPI ask data_len(). */
typedef struct {
    Pubkey *key;
    u64 *lamports;
    u64 input_len;
    u8 *data;
    Pubkey *owner;
    u64 rent_epoch;
    bool is_signer;
    bool is_writable;
    bool is_executable;
} AccountInfo;

typedef struct {
    u64 slot;
    i64 epoch_start_timestamp;
    u64 epoch;
    u64 leader_schedule_epoch;
    i64 unix_timestamp;
} Clock;

typedef struct {
    u64 lamports_per_byte_year;
    u64 exemption_threshold; /* the bits of an IEEE 754 double */
    u8 burn_percent;
    u8 padding[7];
} Rent;

extern void sol_log_(const char *text, u64 len);
extern void sol_log_pubkey(const Pubkey *key);
extern void sol_log_data(const Slice *fields, u64 count);
extern u64 sol_get_clock_sysvar(Clock *clock);
extern u64 sol_get_rent_sysvar(Rent *rent);
extern void sol_memset_(void *start, u8 value, u64 len);
extern u64 sol_create_program_address(const Slice *seeds, u64 count, const Pubkey *program_id, Pubkey *address);
extern u64 sol_try_find_program_address(const Slice *seeds, u64 count, const Pubkey *program_id, Pubkey *address,
                                        u8 *bump);
extern u64 sol_invoke_signed_c(const Instruction *instruction, const AccountInfo *accounts, u64 account_count,
                               const Slice *signers, u64 signer_count);

#define LOG(literal) sol_log_("" literal, sizeof(literal) - 1)

/* Memory in SBF needs no alignment; memcpy of a constant size is how C says so. */
INLINE u64 load_u64(const u8 *at) {
    u64 value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}

INLINE void store_u64(u8 *at, u64 value) { __builtin_memcpy(at, &value, sizeof value); }

INLINE bool keys_equal(const Pubkey *left, const Pubkey *right) {
    u64 difference = 0;
    for (u64 at = 0; at < sizeof(Pubkey); at += 8)
        difference |= load_u64(left->bytes + at) ^ load_u64(right->bytes + at);
    return difference == 0;
}

/* The account's length now: the runtime keeps it in the eight bytes before the data, up to date after a CPI. */
INLINE u64 data_len(const AccountInfo *account) { return load_u64(account->data - 8); }
