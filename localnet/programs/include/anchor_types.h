/*
 * What the header generated from an IDL speaks of. The generated `idl.h` includes this and nothing else does directly.
 */
#pragma once
#include "sbf.h"

enum { SIGNER = 1, WRITABLE = 2 };

/* One account of an instruction, as the IDL lists it. `address` is NULL where the IDL fixes none. */
typedef struct {
    const char *name;
    u64 flags;
    const Pubkey *address;
} AccountSpec;

typedef struct {
    u64 code;
    const char *name;
    const char *message;
} ErrorText;

/* An instruction being executed: what the runtime passed, and the account list the IDL gives it. */
typedef struct {
    const Pubkey *program_id;
    AccountInfo *accounts;
    u64 account_count;
    const u8 *data; /* discriminator included */
    u64 data_len;
    const AccountSpec *specs;
} Context;
