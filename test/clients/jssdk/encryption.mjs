// Two people of two tenants use end-to-end encryption with matrix-js-sdk's Rust crypto: cross-signing, a room with
// messages both ways, verification by emoji (each other, and a new own device), key backup restored on a new device,
// device lists that follow logins and logouts.
import assert from "node:assert/strict";
import { accounts, events, login, main, message, refused, room, step, text, until, withPassword } from "./kit.mjs";
import { VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";

const { alice, bob } = accounts;

/** Both sides run SAS to its end, compare the emoji and confirm. */
async function compareEmoji(asking, answering) {
    const ready = (request) => until("the request is ready", () => request.phase === VerificationPhase.Ready);
    await answering.accept();
    await Promise.all([ready(asking), ready(answering)]);
    const first = await asking.startVerification("m.sas.v1");
    const second = await until("the other side sees the start", () => answering.verifier);
    const shown = [];
    for (const verifier of [first, second]) {
        verifier.on(VerifierEvent.ShowSas, (sas) => {
            shown.push(sas);
            if (shown.length < 2) return;
            assert.deepEqual(shown[0].sas.emoji, shown[1].sas.emoji, "both sides show the same emoji");
            assert.equal(shown[0].sas.emoji.length, 7);
            for (const one of shown) void one.confirm();
        });
    }
    await Promise.all([first.verify(), second.verify()]);
    await until("both requests are done", () =>
        [asking, answering].every((request) => request.phase === VerificationPhase.Done),
    );
}

async function says(from, roomId, body, readers) {
    await from.sendMessage(roomId, text(body));
    for (const reader of readers) {
        const event = await message(reader, roomId, body);
        assert.equal(event.getWireType(), "m.room.encrypted", `"${body}" went encrypted over the wire`);
        assert.equal(event.getSender(), from.getUserId());
    }
}

await main("encryption", async () => {
    let recoveryKey;
    const secretKey = () => recoveryKey.privateKey;

    const a1 = await step("alice logs in", () => login(alice, "alice 1", { crypto: true, secretKey }));
    const b1 = await step("bob logs in", () => login(bob, "bob 1", { crypto: true }));

    await step("alice makes cross-signing keys", async () => {
        await a1.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(alice) });
        assert.ok(await a1.getCrypto().isCrossSigningReady());
    });
    await step("bob makes cross-signing keys", async () => {
        await b1.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(bob) });
        assert.ok(await b1.getCrypto().isCrossSigningReady());
    });

    await step("alice makes secret storage and a key backup", async () => {
        const crypto = a1.getCrypto();
        recoveryKey = await crypto.createRecoveryKeyFromPassphrase();
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => recoveryKey,
            setupNewKeyBackup: true,
        });
        assert.ok(await crypto.isSecretStorageReady(), "secret storage is ready");
        await until("the backup is active", () => crypto.getActiveSessionBackupVersion());
    });

    const roomId = await step("alice makes an encrypted room and invites bob of the other tenant", async () => {
        const made = await a1.createRoom({
            preset: "private_chat",
            name: "Contracts",
            invite: [bob.id],
            is_direct: true,
            initial_state: [
                { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
            ],
        });
        await room(a1, made.room_id);
        return made.room_id;
    });

    await step("bob sees the invitation and joins", async () => {
        const invited = await room(b1, roomId, "invite");
        assert.equal(invited.getMember(bob.id).events.member.getSender(), alice.id);
        await b1.joinRoom(roomId);
        await room(b1, roomId);
        await until("alice sees bob in the room", () => a1.getRoom(roomId).getMember(bob.id)?.membership === "join");
        await until("bob's client knows that it is encrypted", () => b1.getCrypto().isEncryptionEnabledInRoom(roomId));
    });

    await step("messages both ways are readable", async () => {
        await says(a1, roomId, "the first line of alice", [b1, a1]);
        await says(b1, roomId, "the first line of bob", [a1, b1]);
        await says(a1, roomId, "the second line of alice", [b1]);
    });

    await step("alice and bob verify each other by emoji in the room", async () => {
        const asking = await a1.getCrypto().requestVerificationDM(bob.id, roomId);
        const answering = await until("bob gets the request", () =>
            b1.getCrypto().findVerificationRequestDMInProgress(roomId, alice.id),
        );
        await compareEmoji(asking, answering);
        await until("alice trusts bob", async () =>
            (await a1.getCrypto().getUserVerificationStatus(bob.id)).isCrossSigningVerified(),
        );
        await until("bob trusts alice", async () =>
            (await b1.getCrypto().getUserVerificationStatus(alice.id)).isCrossSigningVerified(),
        );
    });

    const b2 = await step("bob logs in with a second device", () => login(bob, "bob 2", { crypto: true }));
    await step("the second device gets the keys of new messages", async () => {
        await room(b2, roomId);
        await until("alice's client knows bob's second device", async () =>
            (await a1.getCrypto().getUserDeviceInfo([bob.id])).get(bob.id)?.has(b2.getDeviceId()),
        );
        await says(a1, roomId, "alice to both devices of bob", [b1, b2]);
        await says(b2, roomId, "bob from his second device", [a1, b1]);
    });

    await step("bob verifies his second device from the first", async () => {
        await until("the second device knows of the identity", () =>
            b2.getCrypto().userHasCrossSigningKeys(bob.id, true),
        );
        const asking = await b2.getCrypto().requestOwnUserVerification();
        const answering = await until("the first device gets the request", () =>
            b1.getCrypto().getVerificationRequestsToDeviceInProgress(bob.id)[0],
        );
        await compareEmoji(asking, answering);
        await until("alice's client sees the second device as cross-signed", async () => {
            const status = await a1.getCrypto().getDeviceVerificationStatus(bob.id, b2.getDeviceId());
            return status?.crossSigningVerified;
        });
        await until("the second device was given the private keys", async () => {
            const status = await b2.getCrypto().getCrossSigningStatus();
            return status.privateKeysCachedLocally.selfSigningKey && status.privateKeysCachedLocally.userSigningKey;
        });
    });

    await step("alice's keys reach the backup", () =>
        until("the backup holds every session of the room", async () => {
            const info = await a1.http.authedRequest("GET", "/room_keys/version"); // the SDK keeps an old answer
            const sessions = (await a1.getCrypto().exportRoomKeys()).length;
            if (info.count < sessions || sessions < 3) throw new Error(`it holds ${info.count} of ${sessions}`);
            return true;
        }),
    );

    const a2 = await step("alice logs in with a new device", () => login(alice, "alice 2", { crypto: true, secretKey }));
    await step("the new device restores the backup with the recovery key", async () => {
        const crypto = a2.getCrypto();
        await until("the new device knows of the identity", () => crypto.userHasCrossSigningKeys(alice.id, true));
        await crypto.bootstrapCrossSigning({});
        assert.ok(await crypto.isCrossSigningReady(), "the keys came out of secret storage");
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        const check = await crypto.checkKeyBackupAndEnable();
        assert.ok(check?.trustInfo.trusted, "the backup is trusted");
        const restored = await crypto.restoreKeyBackup();
        assert.ok(restored.imported >= 3, `imported ${restored.imported} of ${restored.total} sessions`);
        assert.equal(restored.imported, restored.total);
    });
    await step("the new device reads the old messages", async () => {
        const known = await room(a2, roomId);
        await until("the start of the room is loaded", async () => {
            await a2.scrollback(known, 50);
            return events(a2, roomId).some((event) => event.getType() === "m.room.create");
        });
        for (const body of [
            "the first line of alice",
            "the first line of bob",
            "the second line of alice",
            "alice to both devices of bob",
            "bob from his second device",
        ]) {
            await message(a2, roomId, body);
        }
    });
    await step("everybody reads the new device, and it reads everybody", async () => {
        await says(a2, roomId, "alice from her new device", [a1, b1, b2]);
        await until("bob's client knows alice's new device", async () =>
            (await b1.getCrypto().getUserDeviceInfo([alice.id])).get(alice.id)?.has(a2.getDeviceId()),
        );
        await says(b1, roomId, "bob to both devices of alice", [a1, a2]);
    });

    await step("alice removes the old device with her password", async () => {
        const old = a1.getDeviceId();
        a1.stopClient();
        await withPassword(alice)((auth) => a2.deleteDevice(old, auth ?? undefined));
        const { devices } = await a2.getDevices();
        assert.deepEqual(
            devices.map((device) => device.device_id).filter((id) => id === old || id === a2.getDeviceId()),
            [a2.getDeviceId()],
        );
        await refused(a1.whoami(), "M_UNKNOWN_TOKEN", 401);
        await until("bob's client forgets the old device", async () => {
            const known = (await b1.getCrypto().getUserDeviceInfo([alice.id])).get(alice.id);
            return known && !known.has(old) && known.has(a2.getDeviceId());
        });
        await says(b2, roomId, "bob after the old device is gone", [a2, b1]);
    });

    await step("bob logs out", async () => {
        await b2.logout(true);
        await refused(b2.whoami(), "M_UNKNOWN_TOKEN", 401);
        await until("alice's client forgets bob's second device", async () => {
            const known = (await a2.getCrypto().getUserDeviceInfo([bob.id])).get(bob.id);
            return known && !known.has(b2.getDeviceId()) && known.has(b1.getDeviceId());
        });
    });
});
