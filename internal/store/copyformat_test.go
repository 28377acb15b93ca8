package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"testing"
)

// copied makes a table in COPY's binary form; nil is NULL.
func copied(rows ...[][]byte) []byte {
	var out bytes.Buffer
	out.WriteString(copySignature)
	put := func(v any) { binary.Write(&out, binary.BigEndian, v) }
	put(uint32(0))
	put(uint32(3))
	out.WriteString("ext")
	for _, row := range rows {
		put(int16(len(row)))
		for _, v := range row {
			if v == nil {
				put(int32(-1))
				continue
			}
			put(int32(len(v)))
			out.Write(v)
		}
	}
	put(int16(-1))
	return out.Bytes()
}

func everyKind() []tableColumn {
	return []tableColumn{{"a", "TEXT"}, {"b", "BLOB"}, {"c", "INTEGER"}, {"d", "BIGINT"}}
}

func readCopied(raw []byte, columns []tableColumn) ([][]any, error) {
	r, err := newCopyReader(bytes.NewReader(raw), columns)
	if err != nil {
		return nil, err
	}
	var rows [][]any
	for {
		row, err := r.next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
}

func TestCopyReader(t *testing.T) {
	raw := copied(
		[][]byte{[]byte("text"), {0, 1}, {0xff, 0xff, 0xff, 0xfe}, {0x80, 0, 0, 0, 0, 0, 0, 1}},
		[][]byte{{}, {}, nil, nil},
		[][]byte{nil, nil, {0, 0, 0, 7}, {0, 0, 0, 7}},
	)
	got, err := readCopied(raw, everyKind())
	want := [][]any{
		{"text", []byte{0, 1}, int64(-2), int64(-1<<63 + 1)},
		{"", []byte{}, nil, nil},
		{nil, nil, int64(7), int64(7)},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%#v, %v", got, err)
	}
	for cut := range len(raw) {
		if _, err := readCopied(raw[:cut], everyKind()); err == nil {
			t.Errorf("cut at %d: no error", cut)
		}
	}
	if _, err := readCopied(copied([][]byte{{1}}), everyKind()); err == nil {
		t.Error("a row of another table was read")
	}
	if _, err := readCopied(copied([][]byte{{1, 2}}), everyKind()[2:3]); err == nil {
		t.Error("a number of two bytes was read")
	}
}

// The reader is for files that may be damaged: it ends, with rows of the right
// shape or an error, and takes no more memory than there are bytes.
func FuzzCopyReader(f *testing.F) {
	f.Add(copied([][]byte{[]byte("text"), {0, 1}, {0, 0, 0, 1}, nil}))
	f.Add(copied())
	f.Add([]byte(copySignature + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x7f\xff\xff\xffx"))
	f.Add([]byte(copySignature + "\x00\x01\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rows, _ := readCopied(raw, everyKind())
		size := 0
		for _, row := range rows {
			if len(row) != 4 {
				t.Fatalf("a row of %d", len(row))
			}
			text, _ := row[0].(string)
			data, _ := row[1].([]byte)
			size += len(text) + len(data)
		}
		if size > len(raw) {
			t.Fatalf("%d bytes of %d", size, len(raw))
		}
	})
}
