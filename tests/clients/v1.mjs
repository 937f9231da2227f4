// Version 1 transactions as @solana/kit writes them; nobody signs, so the signatures are given.

import { readLife } from "./life.mjs";

import {
  address,
  appendTransactionMessageInstructions,
  blockhash,
  compileTransaction,
  createTransactionMessage,
  getBase64EncodedWireTransaction,
  pipe,
  setTransactionMessageConfig,
  setTransactionMessageFeePayer,
  setTransactionMessageLifetimeUsingBlockhash,
} from "@solana/kit";

const given = await readLife();
process.stdout.write(JSON.stringify(given.map(write)));

function write({ payer, hash, config, instructions, signature }) {
  const message = pipe(
    createTransactionMessage({ version: 1 }),
    (empty) => setTransactionMessageFeePayer(address(payer), empty),
    (paid) => setTransactionMessageLifetimeUsingBlockhash({ blockhash: blockhash(hash), lastValidBlockHeight: 1n }, paid),
    (timed) => setTransactionMessageConfig(config, timed),
    (configured) => appendTransactionMessageInstructions(instructions.map(instruction), configured),
  );
  const compiled = compileTransaction(message);
  const bytes = Uint8Array.from(Buffer.from(signature, "hex"));
  const signatures = Object.fromEntries(Object.keys(compiled.signatures).map((key) => [key, bytes]));
  return getBase64EncodedWireTransaction({ ...compiled, signatures });
}

function instruction({ program, accounts, data }) {
  return {
    programAddress: address(program),
    accounts: accounts.map(({ key, role }) => ({ address: address(key), role })),
    data: Uint8Array.from(Buffer.from(data, "hex")),
  };
}
