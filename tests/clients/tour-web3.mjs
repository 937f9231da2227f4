// Every other method of @solana/web3.js that a node without validators can answer, asked once.
//
// Given {rpc_url, ws_url, program_id, account, data_size, mint, owner, token_account, signature, slot}, it prints
// {results, failures}, by the method's name: web3.js checks each answer's shape, and a failure is what it said.

import {
  Connection,
  Keypair,
  PublicKey,
  SystemProgram,
  TransactionMessage,
  VersionedTransaction,
} from "@solana/web3.js";

import { finish, readLife } from "./life.mjs";

const given = await readLife();
const connection = new Connection(given.rpc_url, { commitment: "confirmed", wsEndpoint: given.ws_url });
const key = (name) => new PublicKey(given[name]);
const { signature, slot } = given;
const readable = { commitment: "confirmed", maxSupportedTransactionVersion: 0 };
const mint = { mint: key("mint") };
const filters = [{ dataSize: given.data_size }];
const wallet = Keypair.generate();
const lifetime = await connection.getLatestBlockhash();
const transfer = SystemProgram.transfer({ fromPubkey: wallet.publicKey, toPubkey: key("owner"), lamports: 1 });
const message = new TransactionMessage({
  payerKey: wallet.publicKey,
  recentBlockhash: lifetime.blockhash,
  instructions: [transfer],
}).compileToV0Message();

const calls = {
  getAccountInfoAndContext: () => connection.getAccountInfoAndContext(key("account")),
  getBalance: () => connection.getBalance(key("owner")),
  getBalanceAndContext: () => connection.getBalanceAndContext(key("owner")),
  getBlock: () => connection.getBlock(slot, readable),
  getBlockAccounts: () => connection.getBlock(slot, { ...readable, transactionDetails: "accounts" }),
  getBlockHeight: () => connection.getBlockHeight(),
  getBlockNone: () => connection.getBlock(slot, { ...readable, transactionDetails: "none" }),
  getBlockSignatures: () => connection.getBlockSignatures(slot),
  getBlockTime: () => connection.getBlockTime(slot),
  getBlocks: () => connection.getBlocks(0, slot),
  getEpochInfo: () => connection.getEpochInfo(),
  getEpochSchedule: () => connection.getEpochSchedule(),
  getFeeForMessage: () => connection.getFeeForMessage(message),
  getFirstAvailableBlock: () => connection.getFirstAvailableBlock(),
  getGenesisHash: () => connection.getGenesisHash(),
  getLatestBlockhashAndContext: () => connection.getLatestBlockhashAndContext(),
  getMinimumBalanceForRentExemption: () => connection.getMinimumBalanceForRentExemption(165),
  getMinimumLedgerSlot: () => connection.getMinimumLedgerSlot(),
  getMultipleAccountsInfo: () => connection.getMultipleAccountsInfo([key("account"), wallet.publicKey]),
  getMultipleParsedAccounts: () => connection.getMultipleParsedAccounts([key("mint"), key("token_account")]),
  getParsedAccountInfo: () => connection.getParsedAccountInfo(key("token_account")),
  getParsedBlock: () => connection.getParsedBlock(slot, readable),
  getParsedProgramAccounts: () => connection.getParsedProgramAccounts(key("program_id")),
  getParsedTokenAccountsByOwner: () => connection.getParsedTokenAccountsByOwner(key("owner"), mint),
  getParsedTransaction: () => connection.getParsedTransaction(signature, readable),
  getParsedTransactions: () => connection.getParsedTransactions([signature], readable),
  getProgramAccounts: () => connection.getProgramAccounts(key("program_id"), { filters }),
  getRecentPrioritizationFees: () => connection.getRecentPrioritizationFees(),
  getSignatureStatus: () => connection.getSignatureStatus(signature, { searchTransactionHistory: true }),
  getSignatureStatuses: () => connection.getSignatureStatuses([signature]),
  getSlot: () => connection.getSlot(),
  getSlotLeader: () => connection.getSlotLeader(),
  getTokenAccountBalance: () => connection.getTokenAccountBalance(key("token_account")),
  getTokenAccountsByOwner: () => connection.getTokenAccountsByOwner(key("owner"), mint),
  getTokenSupply: () => connection.getTokenSupply(key("mint")),
  getTransactionCount: () => connection.getTransactionCount(),
  getTransactions: () => connection.getTransactions([signature], readable),
  getVersion: () => connection.getVersion(),
  isBlockhashValid: () => connection.isBlockhashValid(lifetime.blockhash),
  onAccountChange: () => told((tell) => connection.onAccountChange(wallet.publicKey, tell), fund),
  onLogs: () => told((tell) => connection.onLogs("all", tell), fund),
  onRootChange: () => told((tell) => connection.onRootChange(tell)),
  onSlotChange: () => told((tell) => connection.onSlotChange(tell)),
  requestAirdrop: fund,
  sendTransaction: spend,
  simulateTransaction: simulate,
};

const seen = { results: {}, failures: {} };
for (const [name, call] of Object.entries(calls)) {
  try {
    seen.results[name] = await call();
  } catch (error) {
    seen.failures[name] = String(error.stack);
  }
}
finish(seen);

/** Subscribe, make happen what is to be told of, and return what was told. */
async function told(subscribe, happen = () => {}) {
  const heard = new Promise((resolve) => subscribe(resolve));
  await new Promise((resolve) => setTimeout(resolve, 100));
  await happen();
  return heard;
}

async function fund() {
  const funded = await connection.requestAirdrop(wallet.publicKey, 1_000_000_000);
  const { value } = await connection.confirmTransaction({ signature: funded, ...lifetime });
  return value;
}

async function spend() {
  const transaction = new VersionedTransaction(message);
  transaction.sign([wallet]);
  const sent = await connection.sendTransaction(transaction, { maxRetries: 3 });
  const { value } = await connection.confirmTransaction({ signature: sent, ...lifetime });
  return value;
}

async function simulate() {
  const accounts = { addresses: [given.owner], encoding: "base64" };
  const options = { accounts, replaceRecentBlockhash: true, innerInstructions: true };
  return (await connection.simulateTransaction(new VersionedTransaction(message), options)).value;
}
