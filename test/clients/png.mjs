// A picture for upload tests, made here so that the repository needs no binary file.
import { crc32, deflateSync } from "node:zlib";

function chunk(type, data) {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const out = Buffer.alloc(body.length + 8);
    out.writeUInt32BE(data.length, 0);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), body.length + 4);
    return out;
}

/** A PNG (8-bit RGB) with a gradient. */
export function png(width, height) {
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    header.set([8, 2, 0, 0, 0], 8);
    const pixels = Buffer.alloc(height * (1 + width * 3));
    for (let y = 0, at = 0; y < height; y++) {
        pixels[at++] = 0;
        for (let x = 0; x < width; x++) {
            pixels[at++] = (x * 255) / width;
            pixels[at++] = (y * 255) / height;
            pixels[at++] = 120;
        }
    }
    const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    const parts = [chunk("IHDR", header), chunk("IDAT", deflateSync(pixels)), chunk("IEND", Buffer.alloc(0))];
    return Buffer.concat([signature, ...parts]);
}
