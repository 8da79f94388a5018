// Evaluates requests against IAM policies with iam-simulate: JSON on stdin, JSON on stdout.
// In: {account, policies: {role: [document]}, bucket_policy, rows: [{role, action, resource, context, asks, allowed}],
//      mutants: [{role, place: index of the document or "bucket", document, likely: [row]}]}
// Out: {wrong: [[row, result]], invalid: [[row, message]], survivors: [mutant]}
// Not here: which requests are evaluated, and what is expected.
import { runSimulation, runUnsafeSimulation } from "@cloud-copilot/iam-simulate";
import { readFileSync } from "node:fs";

const given = JSON.parse(readFileSync(0, "utf8"));
const named = (documents) => documents.map((policy, place) => ({ name: String(place), policy }));
const policies = Object.fromEntries(Object.entries(given.policies).map(([role, documents]) => [role, named(documents)]));

// The policy with which a key leaves it to IAM who may use it, as the template's does.
const root = { AWS: `arn:aws:iam::${given.account}:root` };
const keyPolicy = { Version: "2012-10-17", Statement: [{ Effect: "Allow", Principal: root, Action: "kms:*", Resource: "*" }] };

function request(row, identityPolicies, bucketPolicy) {
  return {
    request: {
      principal: `arn:aws:iam::${given.account}:role/${row.role}`,
      action: row.action,
      resource: { resource: row.resource, accountId: row.account ?? given.account },
      contextVariables: row.context,
    },
    identityPolicies,
    resourcePolicy: { bucket: bucketPolicy, key: keyPolicy }[row.asks],
    serviceControlPolicies: [],
    resourceControlPolicies: [],
  };
}

// Without validation it is faster, but cannot take a bucket's policy.
async function isWrong(row, identityPolicies, bucketPolicy) {
  const asked = request(row, identityPolicies, bucketPolicy);
  if (!row.asks) return (runUnsafeSimulation(asked, {}) === "Allowed") !== row.allowed;
  const answer = await runSimulation(asked, {});
  if (answer.errors) throw new Error(`${row.action} ${row.resource}: ${JSON.stringify(answer.errors)}`);
  return (answer.overallResult === "Allowed") !== row.allowed;
}

async function someWrong(rows, identityPolicies, bucketPolicy) {
  for (const row of rows) if (await isWrong(row, identityPolicies, bucketPolicy)) return true;
  return false;
}

const invalid = [];
for (const [number, row] of given.checked.entries()) {
  const answer = await runSimulation(request(row, policies[row.role], given.bucket_policy), {});
  if (answer.errors) invalid.push([number, answer.errors.message]);
}

const wrong = [];
for (const [number, row] of given.rows.entries()) {
  if (await isWrong(row, policies[row.role], given.bucket_policy)) wrong.push(number);
}

const ofRole = new Map(Object.keys(policies).map((role) => [role, given.rows.filter((row) => row.role === role)]));
const survivors = [];
for (const [number, mutant] of given.mutants.entries()) {
  const ofBucket = mutant.place === "bucket";
  const changed = ofBucket
    ? policies[mutant.role]
    : policies[mutant.role].map((policy, place) => (place === mutant.place ? { ...policy, policy: mutant.document } : policy));
  const bucketPolicy = ofBucket ? mutant.document : given.bucket_policy;
  const likely = mutant.likely.map((place) => given.rows[place]);
  const isCaught =
    (await someWrong(likely, changed, bucketPolicy)) || (await someWrong(ofRole.get(mutant.role), changed, bucketPolicy));
  if (!isCaught) survivors.push(number);
}
process.stdout.write(JSON.stringify({ wrong, invalid, survivors }));
