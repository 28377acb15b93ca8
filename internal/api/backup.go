package api

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// backupTime bounds a backup or a verification of a large store.
const backupTime = 6 * time.Hour

// Verified is the outcome of verifying the store.
type Verified struct {
	OK       bool      `json:"ok"`
	Problems []Finding `json:"problems"`
}

func backup(r *router) {
	on(r, http.MethodPost, "/v1/backup", "Stream a backup of the store as a tar file", r.backup, within(backupTime), streams("application/x-tar"), alone())
	on(r, http.MethodPost, "/v1/verify", "Verify every row and body of the store", r.verify, within(backupTime), alone())
}

// backup writes the whole file first, so that a failure is a problem document
// and not a torn stream.
func (s *server) backup(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
	if s.Backup == nil {
		return nil, absent("backup")
	}
	dir, err := os.MkdirTemp(s.Scratch, "backup-")
	if err != nil {
		return nil, fault.Wrap(fault.Later, "store.backup", err)
	}
	file := filepath.Join(dir, "backup.tar")
	if err := s.Backup(ctx, file); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		f, err := os.Open(file)
		os.RemoveAll(dir) // before the client has it all: what is open stays
		if err != nil {
			panic(err) // answered by the outer handler
		}
		defer f.Close()
		s.streamFile(ctx, f)
	}}, nil
}

// streamFile sends a file with its length, so that the client notices when it
// was cut short.
func (s *server) streamFile(ctx huma.Context, f *os.File) {
	info, err := f.Stat()
	if err != nil {
		panic(err)
	}
	ctx.SetHeader("Content-Type", "application/x-tar")
	ctx.SetHeader("Content-Length", strconv.FormatInt(info.Size(), 10))
	ctx.SetStatus(http.StatusOK)
	if _, err := io.Copy(ctx.BodyWriter(), f); err != nil {
		s.Log.WarnContext(ctx.Context(), "api: a backup was not read to its end", "err", err)
	}
}

func (s *server) verify(ctx context.Context, _ *struct{}) (*out[Verified], error) {
	if s.Verify == nil {
		return nil, absent("verification")
	}
	problems, err := s.Verify(ctx)
	if err != nil {
		return nil, err
	}
	return reply(Verified{len(problems) == 0, problems}), nil
}
