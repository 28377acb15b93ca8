package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// maxSecret bounds what is read of a credential's file.
const maxSecret = 64 << 10

// storedCredential is the file's form.
type storedCredential struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// OpenCredential implements [Credentials]. A file that others can read is
// refused: its secret is none any more.
func (f *Files) OpenCredential(_ context.Context, u Use) (Credential, error) {
	const op = "client.OpenCredential"
	if err := checkNames(op, u.Tenant, u.Connection); err != nil {
		return Credential{}, err
	}
	raw, err := readSecret(f.secretPath(u.Tenant, u.Connection))
	if errors.Is(err, fs.ErrNotExist) {
		return Credential{}, missingCredential(op, u.Tenant, u.Connection)
	}
	var e *fault.Error
	if errors.As(err, &e) {
		return Credential{}, e
	}
	if err != nil {
		return Credential{}, fault.Wrap(fault.Internal, op, err)
	}
	var c storedCredential
	if json.Unmarshal(raw, &c) != nil { // its error could quote the secret
		return Credential{}, fault.New(fault.Internal, op, "the credential's file is damaged").
			WithHint("Set the credential again with: credential set " + u.Tenant + " " + u.Connection + " --stdin")
	}
	return Credential(c), nil
}

// SetCredential implements [Credentials].
func (f *Files) SetCredential(_ context.Context, tenant, connection string, c Credential) error {
	const op = "client.SetCredential"
	if err := checkNames(op, tenant, connection); err != nil {
		return err
	}
	raw, err := json.Marshal(storedCredential(c))
	if err != nil {
		return fault.Wrap(fault.Internal, op, err)
	}
	if len(raw) > maxSecret {
		return fault.New(fault.Invalid, op, "the credential is too long").WithHint("Check that the input is a user name and a password.")
	}
	return fault.Wrap(fault.Internal, op, writeFile(f.secretPath(tenant, connection), raw))
}

// RemoveCredential implements [Credentials].
func (f *Files) RemoveCredential(_ context.Context, tenant, connection string) error {
	const op = "client.RemoveCredential"
	if err := checkNames(op, tenant, connection); err != nil {
		return err
	}
	err := removeSynced(f.secretPath(tenant, connection))
	if errors.Is(err, fs.ErrNotExist) {
		return missingCredential(op, tenant, connection)
	}
	return fault.Wrap(fault.Internal, op, err)
}

// ListCredentials implements [Credentials]. It reads no file: when one was set
// is when its file was written, and nobody counts who opens files.
func (f *Files) ListCredentials(_ context.Context, tenant string) ([]CredentialInfo, error) {
	const op = "client.ListCredentials"
	if err := checkNames(op, tenant); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(f.dir, secretsDir, tenant))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	var all []CredentialInfo
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, fault.Wrap(fault.Internal, op, err)
		}
		if info.Mode().IsRegular() && safeName(e.Name()) {
			all = append(all, CredentialInfo{Connection: e.Name(), SetAt: info.ModTime()})
		}
	}
	return all, nil
}

func (f *Files) secretPath(tenant, connection string) string {
	return filepath.Join(f.dir, secretsDir, tenant, connection)
}

func missingCredential(op, tenant, connection string) error {
	return fault.New(fault.Missing, op, "no credential for "+tenant+"/"+connection).
		WithHint("Set one with: credential set " + tenant + " " + connection + " --stdin")
}

// readSecret reads a file after it has looked at its mode.
func readSecret(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Denied, "client.OpenCredential", path+" can be read by others").
			WithHint("Change the password, then set it again; or chmod 600 the file if nobody else has an account here.")
	}
	return io.ReadAll(io.LimitReader(file, maxSecret))
}
