// What the matrix-js-sdk scenarios share: reading the environment, logging in a device, waiting, and steps that say
// what they do. Nothing here knows about the server under test beyond its URL and two accounts.
import assert from "node:assert/strict";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

/** How long one expected thing may take to happen. */
export const patience = Number(process.env.HANSA_CLIENT_PATIENCE_MS ?? 30_000);

logger.setLevel(process.env.HANSA_CLIENT_DEBUG ? "debug" : "silent", false);
// Both the SDK and its WebAssembly part write to the console; a failing step is easier to find without that.
if (!process.env.HANSA_CLIENT_DEBUG) {
    for (const level of ["debug", "info", "warn", "trace"]) console[level] = () => {};
}

function need(name) {
    const value = process.env[name];
    if (!value) {
        console.error(`${name} is not set; see test/clients/README.md`);
        process.exit(2);
    }
    return value;
}

export const url = need("HANSA_URL");
export const accounts = {
    alice: { id: need("HANSA_ALICE"), password: need("HANSA_ALICE_PASSWORD") },
    // Bob may be on another server.
    bob: { id: need("HANSA_BOB"), password: need("HANSA_BOB_PASSWORD"), url: process.env.HANSA_BOB_SERVER },
};

/** What the person types as the user name, and the homeserver that the person gives to the client. */
const typed = (account) => account.user ?? account.id;
const homeserver = (account) => account.url ?? url;

const began = Date.now();
const clients = new Set();

/** Runs one named step and prints how long it took. */
export async function step(name, act) {
    const from = Date.now();
    try {
        const result = await act();
        console.log(`ok    ${name} (${Date.now() - from} ms)`);
        return result;
    } catch (err) {
        console.log(`FAIL  ${name} (${Date.now() - from} ms)`);
        throw err;
    }
}

/** Waits until probe() returns something truthy, and returns that. */
export async function until(what, probe, ms = patience) {
    const end = Date.now() + ms;
    let last;
    for (;;) {
        try {
            const value = await probe();
            if (value) return value;
            last = undefined;
        } catch (err) {
            last = err;
        }
        if (Date.now() > end) {
            throw new Error(`waited ${ms} ms in vain until ${what}${last ? ": " + last.message : ""}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 40));
    }
}

/** Asserts that a call is refused with this errcode (and status). */
export async function refused(promise, errcode, status) {
    let value;
    try {
        value = await promise;
    } catch (err) {
        assert.equal(err.errcode, errcode, `errcode of: ${err.message}`);
        if (status) assert.equal(err.httpStatus, status, `status of: ${err.message}`);
        return err;
    }
    assert.fail(`expected ${errcode}, got ${JSON.stringify(value)}`);
}

/** Asks again where the server's rules had no time to decide, as they do on a machine that is too busy: nothing was done then. */
async function ask(resource, options) {
    for (let tries = 1; ; tries++) {
        const answer = await fetch(resource, options);
        if (answer.status !== 503 || tries === 100 || !(await answer.clone().text()).includes("cannot decide at present")) return answer;
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
}

/** Logs in a new device. With crypto, it has its own in-memory Rust crypto store. */
export async function login(account, name, { crypto = false, secretKey = null, start = {} } = {}) {
    const anonymous = sdk.createClient({ baseUrl: homeserver(account), fetchFn: ask });
    const session = await anonymous.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: typed(account) },
        password: account.password,
        initial_device_display_name: name,
    });
    assert.equal(session.user_id, account.id);
    const client = sdk.createClient({
        baseUrl: homeserver(account),
        userId: session.user_id,
        deviceId: session.device_id,
        accessToken: session.access_token,
        fetchFn: ask,
        timelineSupport: true,
        verificationMethods: ["m.sas.v1"],
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => (secretKey ? [Object.keys(keys)[0], secretKey()] : null),
        },
    });
    clients.add(client);
    if (crypto) await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 20, ...start });
    await until(`${name} has done its first sync`, () => client.isInitialSyncComplete());
    return client;
}

/** Answers user-interactive authentication with the account's password. */
export function withPassword(account) {
    return async (request) => {
        try {
            return await request(null);
        } catch (err) {
            if (err.httpStatus !== 401 || !err.data?.flows) throw err;
            assert.ok(
                err.data.flows.some((flow) => flow.stages.includes("m.login.password")),
                "a flow with m.login.password is offered",
            );
            return await request({
                type: "m.login.password",
                identifier: { type: "m.id.user", user: account.id },
                password: account.password,
                session: err.data.session,
            });
        }
    };
}

/** The room as this client sees it, once it sees it with that membership. */
export function room(client, roomId, membership = "join") {
    return until(`${client.getUserId()} has ${roomId} as "${membership}"`, () => {
        const found = client.getRoom(roomId);
        return found?.getMyMembership() === membership ? found : null;
    });
}

/** Every event that this client holds of a room, oldest first. */
export function events(client, roomId) {
    return client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];
}

/** Waits until a client shows a message with this text in a room; the event must be decrypted when it is encrypted. */
export function message(client, roomId, body) {
    return until(`${client.getUserId()} (${client.getDeviceId()}) reads "${body}"`, () => {
        const all = events(client, roomId);
        const found = all.find((event) => event.getContent().body === body && !event.isSending());
        if (!found) {
            const broken = all.filter((event) => event.isDecryptionFailure());
            if (broken.length > 0) {
                throw new Error(broken.map((event) => `${event.getId()}: ${event.decryptionFailureReason}`).join(", "));
            }
        }
        return found;
    });
}

export function text(body, more = {}) {
    return { msgtype: "m.text", body, ...more };
}

/** Runs a scenario, stops its clients, and exits with 0 or 1. */
export async function main(title, scenario) {
    console.log(`${title}: matrix-js-sdk against ${url}, Node ${process.version}`);
    let status = 0;
    try {
        await scenario();
        console.log(`${title}: passed in ${Date.now() - began} ms`);
    } catch (err) {
        status = 1;
        console.log(`${title}: FAILED: ${err.stack ?? err}`);
        if (err.data) console.log(`answer of the server: ${err.httpStatus} ${JSON.stringify(err.data)}`);
    }
    for (const client of clients) client.stopClient();
    process.exit(status);
}
