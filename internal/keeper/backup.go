package keeper

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// BackupBeside copies a keeper's database to w from another process than the
// keeper, which may be running or not. The keys in it are sealed, and the KEK is
// not among them; nor is what the keeper knows beside its database, by which an
// old copy is told. The copy is marked: a keeper that opens it is frozen until
// operators thaw it.
func BackupBeside(ctx context.Context, c store.Config, w io.Writer) error {
	at, err := backupMark()
	if err != nil {
		return err
	}
	return store.BackupKeeper(ctx, c, w, upsertState, rememberRestored, at)
}

// backupMark is what the mark of a copy says: when it was made.
func backupMark() (string, error) {
	at, err := json.Marshal(time.Now().UTC())
	return string(at), fault.Wrap(fault.Internal, "keeper.Backup", err)
}

// Restore fills an empty place from a backup. The keeper starts frozen there.
func Restore(ctx context.Context, r io.Reader, c store.Config) error {
	return store.RestoreKeeper(ctx, r, c)
}
