// Bundles the Hydrogen web client from npm and serves it on localhost.
//
//   node hydrogen/site.mjs PORT HOMESERVER-URL     serves it until it is stopped, to try it by hand
import { build } from "esbuild";
import { copyFile, cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const types = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
};

/** Writes the site into a folder; the login page proposes the homeserver. */
export async function bundle(folder, homeserver) {
    await mkdir(folder, { recursive: true });
    await build({
        entryPoints: [path.join(here, "app/main.js")],
        outdir: folder,
        bundle: true,
        format: "esm",
        target: "es2022",
        logLevel: "error",
        loader: { ".svg": "file", ".png": "file", ".woff": "file", ".woff2": "file" },
        external: ["crypto", "fs", "path"],
    });
    const sdk = path.join(path.dirname(require.resolve("hydrogen-view-sdk")), "..");
    const olm = path.dirname(require.resolve("@matrix-org/olm"));
    await copyFile(path.join(here, "app/index.html"), path.join(folder, "index.html"));
    await copyFile(path.join(sdk, "lib-build/sw.js"), path.join(folder, "sw.js"));
    await copyFile(path.join(sdk, "asset-build/assets/main.js"), path.join(folder, "worker.js"));
    await copyFile(path.join(sdk, "asset-build/assets/download-sandbox.html"), path.join(folder, "download-sandbox.html"));
    for (const name of ["olm.js", "olm.wasm", "olm_legacy.js"]) await cp(path.join(olm, name), path.join(folder, name));
    await writeFile(path.join(folder, "config.json"), JSON.stringify({ defaultHomeServer: homeserver }));
}

/** Serves a folder on 127.0.0.1; port 0 takes a free one. */
export async function serve(folder, port = 0) {
    const server = createServer(async (request, response) => {
        const name = path.posix.normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
        const file = path.join(folder, name === "/" ? "index.html" : name);
        try {
            const body = await readFile(file);
            response.writeHead(200, { "Content-Type": types[path.extname(file)] ?? "application/octet-stream" });
            response.end(body);
        } catch {
            response.writeHead(404).end();
        }
    });
    await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
    return { url: `http://localhost:${server.address().port}/`, close: () => server.close() };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const [port, homeserver] = process.argv.slice(2);
    if (!homeserver) {
        console.error("usage: node hydrogen/site.mjs PORT HOMESERVER-URL");
        process.exit(2);
    }
    const folder = path.join(here, "../output/hydrogen-site");
    await bundle(folder, homeserver);
    console.log(`Hydrogen at ${(await serve(folder, Number(port))).url}, homeserver ${homeserver}`);
}
