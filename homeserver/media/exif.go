package media

import (
	"encoding/binary"
	"io"
)

const (
	// maxExif bounds the metadata that is looked at, maxChunks the chunks before it.
	maxExif   = 64 << 10
	maxChunks = 256
)

// orientation finds the orientation in EXIF data, which is a TIFF file. Whatever is not well formed is 1, upright.
func orientation(exif []byte) int {
	if len(exif) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.BigEndian
	switch string(exif[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
	default:
		return 1
	}
	at := int64(order.Uint32(exif[4:]))
	if at < 8 || at+2 > int64(len(exif)) {
		return 1
	}
	n := int64(order.Uint16(exif[at:]))
	for i := range n {
		entry := at + 2 + 12*i
		if entry+12 > int64(len(exif)) {
			return 1
		}
		const tagOrientation, typeShort = 0x0112, 3
		if order.Uint16(exif[entry:]) != tagOrientation || order.Uint16(exif[entry+2:]) != typeShort {
			continue
		}
		if v := order.Uint16(exif[entry+8:]); v >= 1 && v <= 8 {
			return int(v)
		}
		return 1
	}
	return 1
}

// pngOrientation finds an eXIf chunk before the pixels.
func pngOrientation(r io.ReadSeeker) int {
	at := int64(8)
	for range maxChunks {
		var head [8]byte
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			return 1
		}
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return 1
		}
		n := int64(binary.BigEndian.Uint32(head[:]))
		switch string(head[4:]) {
		case "eXIf":
			return readOrientation(r, n)
		case "IDAT", "IEND":
			return 1
		}
		at += 12 + n
	}
	return 1
}

// webpOrientation finds an EXIF chunk, which stands behind the pixels.
func webpOrientation(r io.ReadSeeker) int {
	at := int64(12)
	for range maxChunks {
		var head [8]byte
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			return 1
		}
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return 1
		}
		n := int64(binary.LittleEndian.Uint32(head[4:]))
		if string(head[:4]) == "EXIF" {
			return readOrientation(r, n)
		}
		at += 8 + n + n&1
	}
	return 1
}

func readOrientation(r io.Reader, n int64) int {
	if n > maxExif {
		return 1
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 1
	}
	const prefix = "Exif\x00\x00" // some writers keep it
	if len(data) > len(prefix) && string(data[:len(prefix)]) == prefix {
		data = data[len(prefix):]
	}
	return orientation(data)
}
