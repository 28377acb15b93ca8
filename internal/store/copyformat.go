package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// copySignature begins what COPY writes with FORMAT binary (PostgreSQL's
// manual, COPY, "Binary Format").
const copySignature = "PGCOPY\n\xff\r\n\x00"

// copyReader reads such rows as values for SQLite.
type copyReader struct {
	in      *bufio.Reader
	columns []tableColumn
	read    int64 // rows
}

func newCopyReader(r io.Reader, columns []tableColumn) (*copyReader, error) {
	c := &copyReader{in: bufio.NewReaderSize(r, 64<<10), columns: columns}
	var head struct {
		Signature [len(copySignature)]byte
		Flags     uint32
		Extension uint32 // its length
	}
	if err := binary.Read(c.in, binary.BigEndian, &head); err != nil {
		return nil, err
	}
	// Flags above bit 15 are for what a reader must know of.
	if string(head.Signature[:]) != copySignature || head.Flags>>16 != 0 {
		return nil, errors.New("not a table in the binary form of COPY")
	}
	_, err := io.CopyN(io.Discard, c.in, int64(head.Extension))
	return c, whole(err)
}

// next returns one row, and io.EOF after the mark that ends the table.
func (c *copyReader) next() ([]any, error) {
	var fields int16
	if err := binary.Read(c.in, binary.BigEndian, &fields); err != nil {
		return nil, whole(err)
	}
	if fields == -1 {
		return nil, io.EOF
	}
	if int(fields) != len(c.columns) {
		return nil, fmt.Errorf("a row has %d columns, not %d", fields, len(c.columns))
	}
	row := make([]any, len(c.columns))
	for i, column := range c.columns {
		value, err := c.field(column)
		if err != nil {
			return nil, err
		}
		row[i] = value
	}
	c.read++
	return row, nil
}

// field reads one value. Its length may be wrong: no more memory is taken
// than there are bytes.
func (c *copyReader) field(column tableColumn) (any, error) {
	var length int32
	if err := binary.Read(c.in, binary.BigEndian, &length); err != nil {
		return nil, whole(err)
	}
	if length == -1 {
		return nil, nil
	}
	if length < 0 {
		return nil, fmt.Errorf("a value of column %s has length %d", column.name, length)
	}
	var value bytes.Buffer
	if _, err := io.CopyN(&value, c.in, int64(length)); err != nil {
		return nil, whole(err)
	}
	return fromPostgres(column, value.Bytes())
}

// fromPostgres reads a value by its column's declared type.
func fromPostgres(column tableColumn, b []byte) (any, error) {
	switch {
	case column.kind == "TEXT":
		return string(b), nil
	case column.kind == "BLOB" && b == nil:
		return []byte{}, nil // nil would be NULL
	case column.kind == "BLOB":
		return b, nil
	case len(b) == 4:
		return int64(int32(binary.BigEndian.Uint32(b))), nil
	case len(b) == 8:
		return int64(binary.BigEndian.Uint64(b)), nil
	}
	return nil, fmt.Errorf("column %s (%s) has a value of %d bytes", column.name, column.kind, len(b))
}

// whole says of an early end that it is one: only the mark ends a table.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
