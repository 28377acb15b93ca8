package keeper

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// leastRoom is the free space below which people are told: a ledger that
	// can't grow stops every act.
	leastRoom = 512 << 20
	roomEvery = time.Minute
	roomAgain = time.Hour // between two alarms
)

// runRoom looks at the space that is left, until ctx ends. Whoever may ask for
// acts can make the ledger grow as long as he likes.
func (k *Keeper) runRoom(ctx context.Context) {
	var told time.Time
	for {
		told = k.lookRoom(told, freeBytes)
		if !sleep(ctx, roomEvery) {
			return
		}
	}
}

// lookRoom raises the alarm when it is due, and returns when it was last.
func (k *Keeper) lookRoom(told time.Time, free func(dir string) (uint64, error)) time.Time {
	left, err := free(k.c.Dir)
	now := k.now()
	if err != nil || left >= leastRoom || now.Sub(told) < roomAgain && !now.Before(told) {
		return told
	}
	k.alarm(alarmDisk, "", fmt.Sprintf("the keeper's disk has %d MiB left: when it is full no act is done", left>>20))
	return now
}

// freeBytes is what may be written where a folder is.
func freeBytes(dir string) (uint64, error) {
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	return s.Bavail * uint64(s.Bsize), err
}
