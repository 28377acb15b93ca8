package store

import "context"

// Sets are the sets of migrations and the newest version of each.
func Sets() (map[string]int64, error) {
	sets := map[string]int64{}
	for _, set := range []string{roadSet, controlSet, traceSet} {
		newest, err := newestVersion(set)
		if err != nil {
			return nil, err
		}
		sets[set] = newest
	}
	return sets, nil
}

// MigratePostgres brings one set of a database to a version, 0 for the newest.
func MigratePostgres(ctx context.Context, url, set string, version int64) (int64, error) {
	write, read, err := openPostgres(url)
	if err != nil {
		return 0, err
	}
	defer read.Close()
	defer write.Close()
	return migrate(ctx, write, onPostgres, set, version)
}
