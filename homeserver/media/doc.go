// Package media keeps what users upload and makes thumbnails of it.
//
// A Service takes uploads (Upload; Create and Fill where the address is wanted first), hands out content (Open) and small
// pictures of it (Thumbnail). Each upload is a file of its own below the folder of its tenant: nothing is shared between
// tenants or users, so nobody learns from an upload what others have, and removing one touches no other. A file is written
// under a temporary name, hashed on the way, made durable, named, and only then entered into the database: what is
// acknowledged is there after a power cut, and a file without a row is an orphan that Run removes after a day.
//
// Addresses hold 160 random bits. Policy decides about every download, with the uploader as the target; what it refuses is as
// absent as what never was. Content is compared with its hash before it is handed out (once in ten minutes per file), so that
// a damaged disk is an error and never a wrong picture.
//
// Media of another server is fetched from there once policy has been asked (remote.go), kept below the folder `remote` within a bound, the
// longest unused going first, and judged again for everybody who asks. Each user may fetch so much in a time. Serve and
// ServeThumbnail answer other servers.
//
// Pictures are strangers' input: size, scans and memory are judged by the header, decoding takes its share of one budget of
// memory and has a deadline, and what comes out holds no metadata. Only PNG, JPEG, GIF and WebP decoders are linked.
//
// spec: client-server-api#content-repository
package media
