// The flows of the JavaScript client, by the number of their line; each uses it as its documentation says.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import * as hub from "@huggingface/hub";
import { CONFIG, WEIGHTS, all, gitSha1, refused, sha256 } from "./world.mjs";

export const FLOWS = {
  async 58(world) {
    const me = await hub.whoAmI(world.as());
    assert.equal(me.name, "alice");
    assert.deepEqual(me.orgs.map((each) => each.name), ["acme"]);
    const wrong = { ...world.as(), accessToken: `${world.spelled("alice").slice(0, -1)}_` };
    await refused(401, "not a complete adaptry token", () => hub.whoAmI(wrong));
    const other = { ...world.as(), accessToken: world.tokens.alice };
    await assert.rejects(() => hub.whoAmI(other), /must start with 'hf_'/);
    const plain = await fetch(`${world.endpoint}/api/whoami-v2`, {
      headers: { Authorization: `Bearer ${world.tokens.alice}` },
    });
    assert.equal((await plain.json()).name, "alice");
  },

  async 59(world) {
    const repo = world.name();
    const made = await hub.createRepo({ ...world.as(), repo, visibility: "private" });
    assert.ok(made.repoUrl.endsWith(`/${repo}`), made.repoUrl);
    await refused(409, "already", () => hub.createRepo({ ...world.as(), repo }));
    await refused(403, "", () => hub.createRepo({ ...world.as(), repo: "elsewhere/tone" }));
    assert.equal(await hub.repoExists({ ...world.as(), repo }), true);
    assert.equal(await hub.repoExists({ ...world.as("nobody"), repo }), false);
    await hub.checkRepoAccess({ ...world.as("reader"), repo });
    await refused(404, "", () => hub.checkRepoAccess({ ...world.as("stranger"), repo }));
    await hub.deleteRepo({ ...world.as(), repo });
    assert.equal(await hub.repoExists({ ...world.as(), repo }), false);
  },

  async 60(world) {
    const repo = await world.pushed("large");
    assert.ok(world.asked("POST /xet/", "/v1/xorbs/") && world.asked("POST /xet/", "/v1/shards"), world.sent);
    assert.ok(!world.asked("PUT "), world.sent);
    assert.equal(sha256(await world.down(repo)), sha256(world.bytes("large")));
    const [weights] = await hub.pathsInfo({ ...world.as(), repo, paths: [WEIGHTS] });
    assert.equal(weights.lfs.oid, sha256(world.bytes("large")));
  },

  async 61(world) {
    const repo = await world.pushed("large", { useXet: false });
    assert.ok(world.asked("PUT /api/lfs/objects") && !world.asked("/xet/"), world.sent);
    assert.equal(sha256(await world.down(repo)), sha256(world.bytes("large")));
  },

  async 62(world) {
    const repo = world.name();
    await hub.createRepo({ ...world.as(), repo });
    const data = tensors(randomBytes(257 << 20));
    const files = [{ path: WEIGHTS, content: new Blob([data]) }];
    await hub.uploadFiles({ ...world.as(), repo, files, useXet: false });
    assert.ok(world.asked("PUT /api/lfs/parts") && world.asked("POST /api/lfs/parts"), world.sent);
    assert.equal(sha256(await world.down(repo)), sha256(data));
  },

  async 63(world) {
    const repo = await world.pushed("large");
    const before = await hub.modelInfo({ ...world.as(), name: repo, additionalFields: ["sha"] });
    world.bytesUp = 0;
    for (const useXet of [true, false]) {
      const files = [world.file("large", CONFIG), world.file("large", WEIGHTS)];
      const done = await hub.uploadFiles({ ...world.as(), repo, files, useXet });
      assert.equal(done.commit.oid, before.sha);
    }
    assert.ok(world.bytesUp < 100_000, `${world.bytesUp} bytes were sent again`);
  },

  async 64(world) {
    const repo = world.name();
    await hub.createRepo({ ...world.as(), repo });
    await hub.createBranch({ ...world.as(), repo, branch: "drafts" });
    const before = tensors(randomBytes(20 << 20));
    const put = (content) => [{ path: WEIGHTS, ...content }];
    const branch = { ...world.as(), repo, branch: "drafts" };
    await hub.uploadFiles({ ...branch, files: put({ content: new Blob([before]) }) });
    world.bytesUp = 0;
    const edits = [{ start: before.length - 4, end: before.length, content: new Blob([randomBytes(4)]) }];
    await hub.uploadFiles({ ...branch, files: put({ originalContent: new Blob([before]), edits }) });
    assert.ok(world.asked("GET /xet/", "/v1/chunks/default/"), world.sent);
    assert.ok(world.bytesUp < 1 << 20, `${world.bytesUp} bytes were sent for 4 that are new`);
    const after = await world.down(repo, WEIGHTS, { revision: "drafts" });
    assert.ok(after.subarray(0, -4).equals(before.subarray(0, -4)) && !after.equals(before));
  },

  async 65(world) {
    const repo = await world.pushed();
    const head = (await all(hub.listCommits({ ...world.as(), repo })))[0].oid;
    const done = await hub.commit({
      ...world.as(),
      repo,
      title: "Licence in, card out",
      parentCommit: head,
      operations: [
        { operation: "addOrUpdate", path: "LICENSE", content: new Blob(["MIT\n"]) },
        { operation: "delete", path: "README.md" },
      ],
    });
    assert.match(done.commit.oid, /^[0-9a-f]{40}$/);
    assert.ok(done.commit.url.endsWith(`/${repo}/commit/${done.commit.oid}`), done.commit.url);
    const stale = { ...world.as(), repo, title: "Late", parentCommit: head };
    const operations = [{ operation: "delete", path: "LICENSE" }];
    await refused(412, "updated since", () => hub.commit({ ...stale, operations }));
    await hub.deleteFile({ ...world.as(), repo, path: "LICENSE" });
    await refused(404, "doesn't exist", () => hub.deleteFiles({ ...world.as(), repo, paths: ["LICENSE"] }));
    const titles = (await all(hub.listCommits({ ...world.as(), repo, batchSize: 2 }))).map((each) => each.title);
    assert.ok(titles.includes("Licence in, card out"), titles);
    assert.equal(await hub.countCommits({ ...world.as(), repo }), titles.length);
  },

  async 66(world) {
    const repo = await world.pushed();
    const weights = world.bytes("first");
    for (const revision of [undefined, "HEAD", "main", "v1", "refs/heads/main"])
      assert.ok((await world.down(repo, WEIGHTS, { revision })).equals(weights), revision);
    const blob = await hub.downloadFile({ ...world.as(), repo, path: WEIGHTS });
    assert.ok(Buffer.from(await blob.slice(8, 40).arrayBuffer()).equals(weights.subarray(8, 40)));
    const pointer = String(await world.down(repo, WEIGHTS, { raw: true }));
    assert.equal(pointer.split("\n")[1], `oid sha256:${sha256(weights)}`);
    assert.ok((await world.down(repo, CONFIG, { raw: true })).equals(world.bytes("first", CONFIG)));
    assert.equal(await world.down(repo, "nothing.txt"), null);
    const info = await hub.fileDownloadInfo({ ...world.as(), repo, path: WEIGHTS });
    assert.deepEqual([info.size, info.etag], [weights.length, `"${sha256(weights)}"`]);
    await refused(404, "", () => world.down(repo, WEIGHTS, { revision: "v9" }));
    await refused(404, "", () => hub.downloadFile({ ...world.as("stranger"), repo, path: WEIGHTS }));
  },

  async 67(world) {
    const repo = await world.pushed();
    const found = await all(hub.listFiles({ ...world.as(), repo, recursive: true, expand: true }));
    const named = Object.fromEntries(found.map((each) => [each.path, each]));
    assert.deepEqual(Object.keys(named).sort(), ["README.md", CONFIG, WEIGHTS].sort());
    assert.equal(named[WEIGHTS].lfs.oid, sha256(world.bytes("first")));
    assert.equal(named[CONFIG].oid, gitSha1(world.bytes("first", CONFIG)));
    assert.ok(named[CONFIG].lastCommit.id);
    const paths = [CONFIG, "nothing.txt"];
    const infos = await hub.pathsInfo({ ...world.as(), repo, paths, expand: true });
    assert.deepEqual(infos.map((each) => each.path), [CONFIG]);
    assert.ok(infos[0].lastCommit.date instanceof Date);
    assert.equal(await hub.fileExists({ ...world.as(), repo, path: WEIGHTS }), true);
    assert.equal(await hub.fileExists({ ...world.as(), repo, path: CONFIG, revision: "HEAD" }), true);
    assert.equal(await hub.fileExists({ ...world.as(), repo, path: "nothing.txt" }), false);
  },

  async 68(world) {
    const repo = await world.pushed();
    const more = ["sha", "tags", "author", "library_name", "siblings", "cardData"];
    const info = await hub.modelInfo({ ...world.as(), name: repo, additionalFields: more });
    assert.deepEqual([info.name, info.private, info.gated, info.author], [repo, true, false, "acme"]);
    assert.match(info.sha, /^[0-9a-f]{40}$/);
    assert.ok(info.updatedAt instanceof Date && !Number.isNaN(info.updatedAt.getTime()));
    assert.ok(info.siblings.some((each) => each.rfilename === WEIGHTS));
    const search = { owner: "acme", query: world.prefix };
    const found = await all(hub.listModels({ ...world.as(), search, additionalFields: ["sha"], limit: 5 }));
    assert.deepEqual(found.map((each) => [each.name, each.sha]), [[repo, info.sha]]);
    assert.deepEqual(await all(hub.listModels({ ...world.as("nobody"), search })), []);
    await refused(404, "", () => hub.modelInfo({ ...world.as(), name: repo, revision: "v9" }));
  },

  async 69(world) {
    const repo = await world.pushed();
    const cacheDir = join(world.scratch, "cache");
    for (const revision of [undefined, "v1"]) {
      const folder = await hub.snapshotDownload({ ...world.as(), repo, cacheDir, revision });
      for (const path of [CONFIG, WEIGHTS]) assert.ok(readFileSync(join(folder, path)).equals(world.bytes("first", path)));
    }
    const path = await hub.downloadFileToCacheDir({ ...world.as(), repo, path: CONFIG, cacheDir });
    assert.ok(readFileSync(path).equals(world.bytes("first", CONFIG)));
    const { repos } = await hub.scanCacheDir(cacheDir);
    assert.deepEqual(repos.map((each) => each.id.name), [repo]);
  },

  async 70(world) {
    const repo = await world.pushed();
    const options = { ...world.as(), repo, path: WEIGHTS, computeParametersCount: true };
    const { header, parameterCount, sharded } = await hub.parseSafetensorsMetadata(options);
    const data = world.bytes("first");
    const expected = JSON.parse(data.subarray(8, 8 + Number(data.readBigUInt64LE(0))));
    const count = (of) =>
      Object.entries(of)
        .filter(([name]) => name !== "__metadata__")
        .reduce((sum, [, { shape }]) => sum + shape.reduce((a, b) => a * b, 1), 0);
    assert.deepEqual([sharded, header], [false, expected]);
    assert.equal(Object.values(parameterCount).reduce((a, b) => a + b, 0), count(expected));
  },

  async 71(world) {
    const repo = await world.pushed();
    const branch = "drafts";
    await hub.createBranch({ ...world.as(), repo, branch });
    await refused(409, "already", () => hub.createBranch({ ...world.as(), repo, branch }));
    const path = `checkpoint-5/${WEIGHTS}`;
    await hub.uploadFile({ ...world.as(), repo, branch, file: world.file("second", WEIGHTS, path) });
    assert.ok((await world.down(repo, path, { revision: branch })).equals(world.bytes("second")));
    assert.equal(await hub.fileExists({ ...world.as(), repo, path }), false);
    await hub.deleteBranch({ ...world.as(), repo, branch });
    await refused(404, "", () => hub.modelInfo({ ...world.as(), name: repo, revision: branch }));
  },

  async 72(world) {
    const repo = world.name();
    await hub.createRepo({ ...world.as(), repo });
    const model = [world.file("first", WEIGHTS, "model.safetensors")];
    await refused(400, "stores adapters", () => hub.uploadFiles({ ...world.as(), repo, files: model }));
    const card = [{ path: "README.md", content: new Blob(["# Tone\n"]) }];
    await refused(403, "reader", () => hub.uploadFiles({ ...world.as("reader"), repo, files: card }));
    await refused(501, "pull request", () => hub.uploadFiles({ ...world.as(), repo, files: card, isPullRequest: true }));
    const misfit = [CONFIG, WEIGHTS].map((path) => world.file("misfit", path));
    await refused(400, "", () => hub.uploadFiles({ ...world.as(), repo, files: misfit }));
    assert.equal(await hub.fileExists({ ...world.as(), repo, path: WEIGHTS }), false);
  },

  async 73(world) {
    const folder = join(world.scratch, "out");
    cpSync(join(world.folders, "first"), folder, { recursive: true });
    mkdirSync(join(folder, "checkpoint-5"));
    for (const path of ["training_args.bin", ".gitattributes", ".DS_Store", `checkpoint-5/${CONFIG}`])
      writeFileSync(join(folder, path), "not part of an adapter");
    writeFileSync(join(folder, "optimizer.pt"), randomBytes(8 << 20));
    writeFileSync(join(folder, "merges.txt"), "");
    const repo = world.name();
    await hub.createRepo({ ...world.as(), repo });
    const steps = await all(hub.uploadFilesWithProgress({ ...world.as(), repo, files: [pathToFileURL(`${folder}/`)] }));
    assert.ok(steps.some((step) => step.event === "phase" && step.phase === "committing"));
    const found = (await all(hub.listFiles({ ...world.as(), repo, recursive: true }))).map((each) => each.path);
    assert.deepEqual(found.sort(), ["README.md", CONFIG, WEIGHTS, "merges.txt"].sort());
  },
};

/** A whole safetensors file with one tensor of these bytes. */
function tensors(data) {
  const header = JSON.stringify({ w: { dtype: "U8", shape: [data.length], data_offsets: [0, data.length] } });
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, Buffer.from(header), data]);
}
