// One script and one style sheet under fixed names; the page says from which sources it was built (see tests/studio/test_static.py).
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { defineConfig } from "vite";

const here = import.meta.dirname;
const BESIDE = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js"]; // sources outside src/

/** SHA-256 over "name NUL content NUL" of every source, in the order of their names. */
function digestOfSources() {
  const below = readdirSync(join(here, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(here, join(entry.parentPath, entry.name)).split(sep).join("/"));
  const hash = createHash("sha256");
  for (const name of [...BESIDE, ...below].sort()) {
    hash.update(name).update("\0").update(readFileSync(join(here, name))).update("\0");
  }
  return hash.digest("hex");
}

export default defineConfig({
  base: "/",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    rollupOptions: {
      output: { entryFileNames: "studio.js", assetFileNames: "studio[extname]" },
    },
  },
  plugins: [
    {
      name: "digest-of-sources",
      transformIndexHtml: () => [{ tag: "meta", attrs: { name: "sources", content: digestOfSources() }, injectTo: "head" }],
    },
  ],
});
