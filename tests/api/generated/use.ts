// Pushes the files of a folder with the client that @hey-api/openapi-ts generated, finds and promotes them.
//
//     node use.js URL TOKEN FOLDER        (the client is the folder `client` beside this file)

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { client } from "./client/client.gen";
import * as api from "./client/sdk.gen";

const [url, token, folder] = process.argv.slice(2) as [string, string, string];
const path = { namespace: "acme", name: "tone" };
client.setConfig({ baseUrl: url, auth: token });

async function send(file: string) {
  const data = readFileSync(join(folder, file));
  const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;
  const size = data.length;
  const upload = await api.openAdapterUpload({ path, body: { digest, size }, throwOnError: true });
  const id = { id: upload.data.id };
  const headers = { "Upload-Offset": 0, "Upload-Size": size };
  await api.appendToUpload({ path: id, headers, body: new Blob([data]), throwOnError: true });
  await api.finishUpload({ path: id, body: { offset: size, size }, throwOnError: true });
  return { path: file, sha256: digest, size };
}

async function main() {
  const files = [];
  for (const file of readdirSync(folder).sort()) files.push(await send(file));
  const manifest = Buffer.from(JSON.stringify({ files, schema: 1 })).toString("base64");
  const options = { metrics: { accuracy: 0.9 } };
  const pushed = await api.pushVersion({ path, body: { manifest, options }, throwOnError: true });
  const found = await api.searchVersions({ query: { q: "metric.accuracy>0.8" }, throwOnError: true });
  const to = found.data.items[0]!.digest;
  if (to !== pushed.data.version.digest) throw new Error("the search found another version");
  const prod = { ...path, alias: "prod" };
  await api.moveAlias({ path: prod, body: { to }, headers: { "If-None-Match": "*" }, throwOnError: true });
  const stale = await api.moveAlias({ path: prod, body: { to }, headers: { "If-Match": '"7"' } });
  const alias = await api.getAlias({ path: prod, throwOnError: true });
  console.log(alias.data.digest, stale.error?.code);
}

main();
