// Bundles configurable-http-proxy into ../jupyterhub_bkai/_proxy: one file that any Node.js >= 20 runs, the pages it
// shows when nothing answers, and the licence texts of everything that went into the bundle.

import { build } from "esbuild";
import fs from "node:fs";
import path from "node:path";

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const out = path.join(here, "..", "jupyterhub_bkai", "_proxy");
const entry = path.join(here, "node_modules/configurable-http-proxy/bin/configurable-http-proxy");

// The entry reads its version from a package.json beside it, which a bundle does not have.
const inlineVersion = {
  name: "inline-version",
  setup({ onLoad }) {
    onLoad({ filter: /bin[/\\]configurable-http-proxy$/ }, ({ path: file }) => {
      const { version } = JSON.parse(fs.readFileSync(path.join(path.dirname(file), "../package.json"), "utf8"));
      const source = fs.readFileSync(file, "utf8");
      const contents = source.replace('require("../package.json")', JSON.stringify({ version }));
      if (contents === source) throw new Error("configurable-http-proxy no longer reads ../package.json: mend build.mjs");
      return { contents, loader: "js" };
    });
  },
};

function packageFolder(input) {
  const parts = input.split("/");
  const at = parts.lastIndexOf("node_modules");
  if (at < 0) throw new Error(`${input} is bundled but belongs to no package`);
  return parts.slice(0, at + (parts[at + 1].startsWith("@") ? 3 : 2)).join("/");
}

function licences(inputs) {
  const folders = [...new Set(inputs.map(packageFolder))].sort();
  return folders.map((folder) => {
    const { name, version, license } = JSON.parse(fs.readFileSync(path.join(here, folder, "package.json"), "utf8"));
    const file = fs.readdirSync(path.join(here, folder)).find((each) => /^(licen[cs]e|copying)/i.test(each));
    const text = file ? fs.readFileSync(path.join(here, folder, file), "utf8").trim() : undefined;
    if (!text && !license) throw new Error(`${name} ${version} names no licence`);
    return `${name} ${version} (${license})\n\n${text ?? "The package carries no licence text beside this name."}\n`;
  });
}

fs.rmSync(out, { recursive: true, force: true });
fs.mkdirSync(path.join(out, "error"), { recursive: true });

const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: [entry],
  outfile: path.join(out, "configurable-http-proxy.js"),
  bundle: true,
  metafile: true,
  platform: "node",
  target: "node20",
  format: "cjs",
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: "none", // their full texts are in THIRD-PARTY-LICENSES.txt
  define: { "import.meta.url": "bundleUrl" },
  banner: { js: 'const bundleUrl = require("node:url").pathToFileURL(__filename).href;' },
  plugins: [inlineVersion],
  logLevel: "warning",
});

for (const page of fs.readdirSync(path.join(here, "error"))) {
  fs.copyFileSync(path.join(here, "error", page), path.join(out, "error", page));
}
// Marks the folder as CommonJS wherever it is unpacked, also below somebody's package.json that says "module".
fs.writeFileSync(path.join(out, "package.json"), '{ "type": "commonjs" }\n');
fs.writeFileSync(
  path.join(out, "THIRD-PARTY-LICENSES.txt"),
  "configurable-http-proxy.js contains the following packages.\n\n" +
    licences(Object.keys(metafile.inputs)).join(`\n${"-".repeat(80)}\n\n`),
);
