// A life through @coral-xyz/anchor: accounts resolved, instructions built and everything read by the IDL.

import { setTimeout as sleep } from "node:timers/promises";

import anchor from "@coral-xyz/anchor";

import { EVENT_TAG, camel, elapse, finish, grown, readLife } from "./life.mjs";

const { AnchorError, AnchorProvider, BN, BorshCoder, EventParser, Program, Wallet, utils, web3 } = anchor;
const { Connection, Keypair, PublicKey, TransactionMessage, VersionedTransaction } = web3;
const READABLE = { commitment: "confirmed", maxSupportedTransactionVersion: 0 };

const life = await readLife();
const connection = new Connection(life.rpc_url, { commitment: "confirmed", wsEndpoint: life.ws_url });
const keypairs = Object.fromEntries(
  Object.entries(life.wallets).map(([key, secret]) => [key, Keypair.fromSecretKey(Uint8Array.from(secret))]),
);
const provider = new AnchorProvider(connection, new Wallet(keypairs[life.payer]), { commitment: "confirmed" });
const program = new Program(life.idl, provider);
const coder = new BorshCoder(life.idl);
const seen = { sent: [], heard: [], confirmed: [], read: [], fetched: [], refused: [] };

const listeners = (program.idl.events ?? []).map((event) =>
  program.addEventListener(event.name, (values, slot, signature) =>
    seen.heard.push({ name: pascal(event.name), values, slot, signature }),
  ),
);

for (const step of life.steps) await take(step);

await grown(seen.heard, life.hears, "events heard");
await grown(seen.confirmed, seen.sent.length, "confirmations heard");
for (const listener of listeners) await program.removeEventListener(listener);
await connection.confirmTransaction(await strategy(seen.sent.at(-1).signature), "finalized");
const history = await connection.getSignaturesForAddress(program.programId, {}, "finalized");
seen.history = history.map(({ signature, err, slot }) => ({ signature, err, slot }));
for (const { signature } of history.toReversed()) seen.read.push(...(await eventsOf(signature)));
finish(seen);

async function take(step) {
  if (step.do === "elapse") return elapse(life, step.seconds);
  if (step.do === "fetch") {
    const address = new PublicKey(step.address);
    const values = await program.account[camel(lowerFirst(step.account))].fetch(address);
    return seen.fetched.push({ account: step.account, values });
  }
  const builder = call(step);
  const keys = await builder.pubkeys();
  for (const [name, key] of Object.entries(step.accounts))
    if (keys[camel(name)]?.toBase58() !== key) throw new Error(`${step.instruction}: ${name} is ${keys[camel(name)]}`);
  if (step.do === "refuse") return refuse(step, builder);
  const signature = await builder.rpc();
  seen.sent.push({ instruction: step.instruction, signature });
  listenFor(signature);
}

/** Build a call in which the IDL says where every account is that it can say so of. */
function call(step) {
  const instruction = program.idl.instructions.find(({ name }) => name === camel(step.instruction));
  const args = instruction.args.map(({ name, type }) => argument(type, byCamel(step.args)[name]));
  const given = Object.entries(byCamel(step.accounts)).filter(([name]) => {
    const account = instruction.accounts.find((one) => one.name === name);
    return !account.address && !isResolvable(account);
  });
  return program.methods[camel(step.instruction)](...args)
    .accountsPartial(Object.fromEntries(given))
    .signers(step.signers.filter((key) => key !== life.payer).map((key) => keypairs[key]));
}

/** A PDA whose seeds are fields of the very account cannot be found before it is known. */
function isResolvable({ name, pda }) {
  return pda !== undefined && !pda.seeds.some(({ kind, path }) => kind === "account" && path.startsWith(`${name}.`));
}

async function refuse(step, builder) {
  const refusal = { instruction: step.instruction };
  try {
    await builder.rpc();
  } catch (error) {
    refusal.is_anchor_error = error instanceof AnchorError;
    refusal.code = error.error?.errorCode?.number ?? error.code;
    refusal.name = error.error?.errorCode?.code;
    refusal.message = error.error?.errorMessage ?? error.msg;
    refusal.program = error.program ?? null;
    refusal.logs = error.logs;
  }
  try {
    await provider.simulate(await unsigned(builder));
  } catch (error) {
    refusal.simulated = { err: error.simulationResponse.err, logs: error.simulationResponse.logs };
  }
  // Anchor builds the error of one that landed as web3.js wanted it long ago, and fails at that: so the chain is asked.
  await builder.rpc({ skipPreflight: true }).catch(() => {});
  const { signature, err } = await newestOf(seen.sent.length + seen.refused.length + 1);
  const { meta } = await connection.getTransaction(signature, READABLE);
  refusal.landed = { signature, err, logs: meta.logMessages };
  seen.refused.push(refusal);
}

/** Wait until the program has so many transactions, and return the newest: Anchor does not wait for one that failed. */
async function newestOf(count) {
  let rows = [];
  while (rows.length < count) {
    await sleep(20);
    rows = await connection.getSignaturesForAddress(program.programId, {}, "confirmed");
  }
  return rows[0];
}

async function unsigned(builder) {
  const { blockhash } = await connection.getLatestBlockhash();
  const instructions = [await builder.instruction()];
  const message = { payerKey: provider.publicKey, recentBlockhash: blockhash, instructions };
  return new VersionedTransaction(new TransactionMessage(message).compileToV0Message());
}

/** Anchor has confirmed it already, by a subscription of its own; this one is ours, and must answer all the same. */
function listenFor(signature) {
  const told = ({ err }, { slot }) => seen.confirmed.push({ signature, err, slot });
  connection.onSignature(signature, told, "confirmed");
}

async function strategy(signature) {
  return { signature, ...(await connection.getLatestBlockhash("confirmed")) };
}

/** Return a transaction's events of this program, from log lines and from calls of itself. */
async function eventsOf(signature) {
  const { meta, transaction } = await connection.getTransaction(signature, READABLE);
  if (meta.err !== null) return [];
  const logged = [...new EventParser(program.programId, coder).parseLogs(meta.logMessages)];
  const keys = transaction.message.getAccountKeys({ accountKeysFromLookups: meta.loadedAddresses });
  const calls = (meta.innerInstructions ?? [])
    .flatMap(({ instructions }) => instructions)
    .filter(({ programIdIndex }) => keys.get(programIdIndex).equals(program.programId))
    .map(({ data }) => utils.bytes.bs58.decode(data))
    .filter((data) => EVENT_TAG.equals(data.subarray(0, 8)));
  const called = calls.map((data) => coder.events.decode(utils.bytes.base64.encode(data.subarray(8))));
  return [...logged, ...called].map(({ name, data }) => ({ name, values: data, signature }));
}

/** Return a JSON value as Anchor wants an argument of that type. */
function argument(type, value) {
  if (type.vec) return value.map((item) => argument(type.vec, item));
  if (type.array) return value.map((item) => argument(type.array[0], item));
  if (/^[ui](64|128)$/.test(type)) return new BN(value);
  if (/^[ui](8|16|32)$/.test(type)) return Number(value);
  return type === "pubkey" ? new PublicKey(value) : value;
}

function byCamel(object) {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [camel(name), value]));
}

function lowerFirst(name) {
  return name[0].toLowerCase() + name.slice(1);
}

function pascal(name) {
  return name[0].toUpperCase() + name.slice(1);
}
