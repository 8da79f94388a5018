// Evaluates requests against IAM policies with iam-simulate: JSON on stdin, JSON on stdout.
// In: {account, policies: {role: [document]}, bucket_policy, rows: [{role, action, resource, context, asks, allowed}],
//      checked: [row], of_mutants: [row],
//      mutants: [{role, place: index of the document or "bucket", number: index of the statement, statement: changed or null,
//                 likely: [index in of_mutants]}]}
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
async function isAllowed(row, identityPolicies, bucketPolicy) {
  const asked = request(row, identityPolicies, bucketPolicy);
  if (!row.asks) return runUnsafeSimulation(asked, {}) === "Allowed";
  const answer = await runSimulation(asked, {});
  if (answer.errors) throw new Error(`${row.action} ${row.resource}: ${JSON.stringify(answer.errors)}`);
  return answer.overallResult === "Allowed";
}

const invalid = [];
for (const [number, row] of given.checked.entries()) {
  const answer = await runSimulation(request(row, policies[row.role], given.bucket_policy), {});
  if (answer.errors) invalid.push([number, answer.errors.message]);
}

const wrong = [];
for (const [number, row] of given.rows.entries()) {
  if ((await isAllowed(row, policies[row.role], given.bucket_policy)) !== row.allowed) wrong.push(number);
}

const serviceOf = (action) => action.split(":")[0];
const without = (document, number) => ({ ...document, Statement: document.Statement.filter((_, place) => place !== number) });
const ofRole = new Map();
function rowsOf(role, services) {
  const key = `${role} ${[...services].sort()}`;
  if (!ofRole.has(key)) {
    ofRole.set(key, given.of_mutants.filter((row) => row.role === role && services.has(serviceOf(row.action))));
  }
  return ofRole.get(key);
}

// Whether one of the rows has another answer than expected. `own`: the changed statement; `rest`: all others of the role.
async function isCaught(rows, own, rest, actions, bucketPolicy) {
  for (const row of rows) {
    if (row.allowed && !actions.includes(row.action)) continue; // other statements allow it
    const byOwn = own.length > 0 && (await isAllowed(row, own, bucketPolicy));
    if (row.allowed ? !byOwn && !(await isAllowed(row, rest, bucketPolicy)) : byOwn) return true;
  }
  return false;
}

const survivors = [];
for (const [number, mutant] of given.mutants.entries()) {
  const statements = mutant.statement ? [mutant.statement] : [];
  if (mutant.place === "bucket") {
    const rest = without(given.bucket_policy, mutant.number);
    const changed = { ...rest, Statement: [...rest.Statement, ...statements] };
    let noticed = false;
    for (const row of given.of_mutants.filter((row) => row.asks === "bucket")) {
      noticed ||= (await isAllowed(row, policies[row.role], changed)) !== row.allowed;
    }
    if (!noticed) survivors.push(number);
    continue;
  }
  const actions = given.policies[mutant.role][mutant.place].Statement[mutant.number].Action;
  const services = new Set([...actions, ...statements.flatMap((statement) => statement.Action)].map(serviceOf));
  const own = named(statements.length ? [{ Version: "2012-10-17", Statement: statements }] : []);
  const rest = named(
    given.policies[mutant.role].map((document, place) => (place === mutant.place ? without(document, mutant.number) : document)),
  );
  const likely = mutant.likely.map((place) => given.of_mutants[place]);
  const caught =
    (await isCaught(likely, own, rest, actions, given.bucket_policy)) ||
    (await isCaught(rowsOf(mutant.role, services), own, rest, actions, given.bucket_policy));
  if (!caught) survivors.push(number);
}
process.stdout.write(JSON.stringify({ wrong, invalid, survivors }));
