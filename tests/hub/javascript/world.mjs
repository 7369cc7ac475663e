// What a flow stands on: a server's address, tokens as the JavaScript client wants them, folders of adapters, names.
//
// Nothing here knows the server's code. Requests are seen through `fetch`, an option of every function of the client.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as hub from "@huggingface/hub";

export const CONFIG = "adapter_config.json";
export const WEIGHTS = "adapter_model.safetensors";

/** `folders`: `first` and `second` are two trainings of one adapter, `large` one of 30 MB. `sent`: "METHOD path" of every request. */
export class World {
  constructor({ endpoint, tokens, folders, scratch, prefix }) {
    Object.assign(this, { endpoint, tokens, folders, scratch, prefix, sent: [], bytesUp: 0 });
  }

  /** What every call is given: who asks, and where. */
  as(who = "alice") {
    const fetch = (url, options = {}) => {
      const { method = "GET", body } = options;
      this.sent.push(`${method} ${String(url).replace(this.endpoint, "")}`);
      this.bytesUp += body?.size ?? body?.byteLength ?? body?.length ?? 0;
      return globalThis.fetch(url, options);
    };
    const token = who === "nobody" ? {} : { accessToken: this.spelled(who) };
    return { hubUrl: this.endpoint, fetch, ...token };
  }

  /** A token in the spelling without which the client sends nothing. */
  spelled(who) {
    return `hf_${this.tokens[who]}`;
  }

  /** The id of a repository that is this flow's alone. */
  name(word = "tone") {
    return `acme/${this.prefix}-${word}`;
  }

  bytes(folder, file = WEIGHTS) {
    return readFileSync(join(this.folders, folder, file));
  }

  /** A file of a folder, as `uploadFiles` takes it. */
  file(folder, path, target = path) {
    return { path: target, content: new Blob([this.bytes(folder, path)]) };
  }

  /** The id of a repository with an adapter in it. */
  async pushed(folder = "first", options = {}) {
    const repo = this.name();
    await hub.createRepo({ ...this.as(), repo });
    const files = ["README.md", CONFIG, WEIGHTS].map((path) => this.file(folder, path));
    await hub.uploadFiles({ ...this.as(), repo, files, ...options });
    return repo;
  }

  /** The bytes of a file, as `downloadFile` gives them. */
  async down(repo, path = WEIGHTS, options = {}) {
    const blob = await hub.downloadFile({ ...this.as(), repo, path, ...options });
    return blob && Buffer.from(await blob.arrayBuffer());
  }

  /** Whether a request began with any of these words. */
  asked(...words) {
    return this.sent.some((request) => words.every((word) => request.includes(word)));
  }
}

/** The call fails with this status, and with this text in what people read. */
export async function refused(status, text, call) {
  await assert.rejects(call, (error) => {
    assert.equal(error.statusCode, status, String(error));
    assert.ok(error.message.includes(text), `no ${JSON.stringify(text)} in: ${error.message}`);
    return true;
  });
}

export const sha256 = (data) => createHash("sha256").update(data).digest("hex");
export const gitSha1 = (data) => createHash("sha1").update(`blob ${data.length}\0`).update(data).digest("hex");

/** All that an asynchronous listing gives. */
export async function all(listing) {
  const found = [];
  for await (const each of listing) found.push(each);
  return found;
}
