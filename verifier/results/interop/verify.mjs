// Verifies a result, independently of Assay: node verify.mjs FOLDER
// Packages are taken from $ASSAY_NODE_MODULES, a folder with node_modules in it.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";

const require = createRequire(path.join(process.env.ASSAY_NODE_MODULES ?? import.meta.dirname, "x.js"));
const { bundleFromJSON } = require("@sigstore/bundle");
const { TrustedRoot } = require("@sigstore/protobuf-specs");
const { Verifier, toSignedEntity, toTrustMaterial } = require("@sigstore/verify");

const [folder] = process.argv.slice(2);
const read = (name) => readFileSync(path.join(folder, name));
const json = (name) => JSON.parse(read(name).toString());

const bundle = bundleFromJSON(json("bundle.json"));
const trust = toTrustMaterial(TrustedRoot.fromJSON(json("trusted_root.json")));
const identity = read("identity").toString();
// The identity is a pattern there: all of it, literally.
const pattern = `^${identity.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`;
const artifact = bundle.content.$case === "messageSignature" ? read("artifact") : undefined;

const verifier = new Verifier(trust, { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 1 });
try {
  verifier.verify(toSignedEntity(bundle, artifact), { subjectAlternativeName: pattern });
} catch (error) {
  console.error(`${error.code}: ${error.message}: ${error.cause?.message ?? ""}`);
  process.exit(1);
}
console.log(`verified: signed by ${identity}`);
