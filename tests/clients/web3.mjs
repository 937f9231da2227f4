// A life through @solana/web3.js: every answer passes its own checks of shape. Anchor's coder reads the bytes, no more.

import anchor from "@coral-xyz/anchor";
import {
  Connection,
  Keypair,
  PublicKey,
  SendTransactionError,
  Transaction,
  TransactionInstruction,
  TransactionMessage,
  VersionedTransaction,
} from "@solana/web3.js";

import { EVENT_TAG, dataLines, elapse, finish, grown, readLife } from "./life.mjs";

const { BN, BorshCoder, utils } = anchor;

const life = await readLife();
const connection = new Connection(life.rpc_url, { commitment: "confirmed", wsEndpoint: life.ws_url });
const programId = new PublicKey(life.program_id);
const coder = new BorshCoder(life.idl);
const keypairs = Object.fromEntries(
  Object.entries(life.wallets).map(([key, secret]) => [key, Keypair.fromSecretKey(Uint8Array.from(secret))]),
);
const payer = keypairs[life.payer];
const seen = { sent: [], heard: [], confirmed: [], read: [], fetched: [], refused: [], noticed: [], changed: [] };

connection.onLogs(programId, ({ err, logs, signature }, { slot }) => {
  seen.noticed.push(signature);
  if (err !== null) return;
  for (const line of dataLines(logs)) {
    const event = coder.events.decode(line);
    if (event !== null) seen.heard.push({ name: event.name, values: event.data, slot, signature });
  }
});
connection.onProgramAccountChange(programId, ({ accountId }) => seen.changed.push(accountId));

for (const [number, step] of life.steps.entries()) await take(step, number);

const landed = seen.sent.length + seen.refused.length;
await grown(seen.heard, life.hears, "events heard");
await grown(seen.noticed, landed, "transactions heard of");
const last = seen.sent.at(-1).signature;
await connection.confirmTransaction({ signature: last, ...(await connection.getLatestBlockhash()) }, "finalized");
const history = await pages();
seen.history = history.map(({ signature, err, slot }) => ({ signature, err, slot }));
for (const { signature } of history.toReversed()) seen.read.push(...(await eventsOf(signature)));
finish(seen);

async function take(step, number) {
  if (step.do === "elapse") return elapse(life, step.seconds);
  if (step.do === "fetch") {
    const { data, owner } = await connection.getAccountInfo(new PublicKey(step.address));
    if (!owner.equals(programId)) throw new Error(`${step.address} belongs to ${owner}`);
    return seen.fetched.push({ account: step.account, values: coder.accounts.decode(step.account, data) });
  }
  if (step.do === "refuse") return refuse(step);
  const signature = await send(step, { isVersioned: number % 2 === 1 });
  seen.sent.push({ instruction: step.instruction, signature });
}

/** Sign, subscribe, send, and return once the subscription has told. */
async function send(step, { isVersioned, skipPreflight = false }) {
  const { blockhash, lastValidBlockHeight } = await connection.getLatestBlockhash();
  const transaction = signed(step, blockhash, isVersioned);
  const signature = utils.bytes.bs58.encode(transaction.signatures[0].signature ?? transaction.signatures[0]);
  const told = new Promise((resolve) => {
    connection.onSignature(signature, ({ err }, { slot }) => resolve({ signature, err, slot }), "confirmed");
  });
  await connection.sendRawTransaction(transaction.serialize(), { skipPreflight });
  await connection.confirmTransaction({ signature, blockhash, lastValidBlockHeight });
  seen.confirmed.push(await told);
  return signature;
}

async function refuse(step) {
  const refusal = { instruction: step.instruction };
  const { blockhash } = await connection.getLatestBlockhash();
  try {
    await connection.sendRawTransaction(signed(step, blockhash, false).serialize());
  } catch (error) {
    refusal.is_send_error = error instanceof SendTransactionError;
    refusal.message = error.transactionError.message;
    refusal.logs = await error.getLogs(connection);
  }
  const simulated = await connection.simulateTransaction(signed(step, blockhash, true), { sigVerify: true });
  refusal.simulated = { err: simulated.value.err, logs: simulated.value.logs };
  refusal.units = simulated.value.unitsConsumed;
  const signature = await send(step, { isVersioned: true, skipPreflight: true });
  const { meta } = await connection.getParsedTransaction(signature, {
    commitment: "confirmed",
    maxSupportedTransactionVersion: 0,
  });
  refusal.landed = { signature, err: meta.err, logs: meta.logMessages, units: meta.computeUnitsConsumed };
  seen.refused.push(refusal);
}

function signed(step, blockhash, isVersioned) {
  const signers = [...new Set([life.payer, ...step.signers])].map((key) => keypairs[key]);
  const instruction = new TransactionInstruction({ programId, keys: metas(step), data: encoded(step) });
  if (isVersioned) {
    const message = { payerKey: payer.publicKey, recentBlockhash: blockhash, instructions: [instruction] };
    const transaction = new VersionedTransaction(new TransactionMessage(message).compileToV0Message());
    transaction.sign(signers);
    return transaction;
  }
  const transaction = new Transaction({ feePayer: payer.publicKey, recentBlockhash: blockhash }).add(instruction);
  transaction.sign(...signers);
  return transaction;
}

function metas(step) {
  const { accounts } = life.idl.instructions.find(({ name }) => name === step.instruction);
  return accounts.map(({ name, signer, writable }) => ({
    pubkey: new PublicKey(step.accounts[name]),
    isSigner: signer ?? false,
    isWritable: writable ?? false,
  }));
}

function encoded(step) {
  const { args } = life.idl.instructions.find(({ name }) => name === step.instruction);
  const values = args.map(({ name, type }) => [name, argument(type, step.args[name])]);
  return coder.instruction.encode(step.instruction, Object.fromEntries(values));
}

/** Return the program's whole history, newest first, in small pages, as an explorer reads it. */
async function pages() {
  const all = [];
  for (;;) {
    const before = all.at(-1)?.signature;
    const page = await connection.getSignaturesForAddress(programId, { before, limit: 3 }, "finalized");
    if (page.length === 0) return all;
    all.push(...page);
  }
}

/** Return a transaction's events of this program, from log lines and from calls of itself. */
async function eventsOf(signature) {
  const { meta, transaction } = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
  if (meta.err !== null) return [];
  const keys = transaction.message.getAccountKeys({ accountKeysFromLookups: meta.loadedAddresses });
  const called = (meta.innerInstructions ?? [])
    .flatMap(({ instructions }) => instructions)
    .filter(({ programIdIndex }) => keys.get(programIdIndex).equals(programId))
    .map(({ data }) => utils.bytes.bs58.decode(data))
    .filter((data) => EVENT_TAG.equals(data.subarray(0, 8)))
    .map((data) => utils.bytes.base64.encode(data.subarray(8)));
  const events = [...dataLines(meta.logMessages), ...called].map((text) => coder.events.decode(text));
  return events.filter((event) => event !== null).map(({ name, data }) => ({ name, values: data, signature }));
}

/** Return a JSON value as Anchor's coder wants an argument of that type. */
function argument(type, value) {
  if (type.vec) return value.map((item) => argument(type.vec, item));
  if (type.array) return value.map((item) => argument(type.array[0], item));
  if (/^[ui](64|128)$/.test(type)) return new BN(value);
  if (/^[ui](8|16|32)$/.test(type)) return Number(value);
  return type === "pubkey" ? new PublicKey(value) : value;
}
