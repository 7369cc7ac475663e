// One line of the checklist, by the official JavaScript client: `run.mjs FAMILY NUMBER TOLD`, TOLD being JSON.
//
// Its last line on stdout is `null`. A flow that fails ends with its stack and exit code 1.

import { FLOWS } from "./flows.mjs";
import { World } from "./world.mjs";

const [, number, told] = process.argv.slice(2);
console.debug = () => {}; // snapshotDownload tells each file that it fetches
try {
  await FLOWS[number](new World(JSON.parse(told)));
  console.log("null");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
