//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

var (
	errHangs  = errors.New("a call into the PKCS#11 module has not come back")
	errAbsent = errors.New("the token holds no such key")
)

// call does something in the token. The caller waits no longer than the time:
// a call that hangs in the module goes on without it, and keeps its slot. What
// met a loss is done once more on a new link.
func call[T any](ctx context.Context, t *token, op string, within time.Duration, f func(*link) (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil { // of two ways that are open select takes any
		return none, told(op, errHangs)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	select {
	case t.slots <- struct{}{}:
	case <-ctx.Done():
		return none, told(op, errHangs)
	}
	type answer struct {
		got T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-t.slots }()
		var a answer
		a.got, a.err = attempt(ctx, t, f)
		done <- a
	}()
	select {
	case a := <-done:
		return a.got, told(op, a.err)
	case <-ctx.Done():
		return none, told(op, errHangs)
	}
}

// attempt does it on the present link, and after a loss on a new one. What was
// refused is asked for once more too: the token may have been going just then.
func attempt[T any](ctx context.Context, t *token, f func(*link) (T, error)) (T, error) {
	got, gone, err := once(ctx, t, f, suspect)
	if (gone || refusal(err)) && ctx.Err() == nil {
		got, _, err = once(ctx, t, f, lost)
	}
	return got, err
}

func once[T any](ctx context.Context, t *token, f func(*link) (T, error), judge func(*link, error) bool) (got T, gone bool, err error) {
	g, l, err := t.take(ctx)
	if err != nil {
		return got, false, err
	}
	got, err = safely(l, f)
	gone = judge(l, err)
	t.module.leave(g, gone)
	return got, gone, err
}

// safely turns a panic of the library into an error: its AEAD has no other way
// to say that the token failed.
func safely[T any](l *link, f func(*link) (T, error)) (got T, err error) {
	defer func() {
		if r := recover(); r != nil {
			var ok bool
			if err, ok = r.(error); !ok {
				err = fmt.Errorf("the PKCS#11 library failed: %v", r)
			}
		}
	}()
	return f(l)
}

// lost tells whether an error may mean that the token is gone. Modules differ
// in what they say then, so it is every error but those that are about the
// request.
func lost(_ *link, err error) bool {
	var ours *fault.Error
	return err != nil && !errors.As(err, &ours) && !refusal(err) && !errors.Is(err, errAbsent)
}

// suspect is lost for the first attempt. SoftHSM without its files finds
// nothing, and says so without an error, or while they go that an attribute of
// a key is invalid: what is not there or refused must be so on a link that
// works, or on a second one.
func suspect(l *link, err error) bool {
	if errors.Is(err, errAbsent) || refusal(err) {
		return !l.works()
	}
	return lost(l, err)
}

// works asks for a key that the link has found before.
func (l *link) works() bool {
	var known any
	l.mu.Lock()
	for _, k := range l.signers {
		known = k
		break
	}
	for _, k := range l.kek {
		known = k
		break
	}
	l.mu.Unlock()
	if known == nil {
		return false
	}
	_, err := l.GetAttribute(known, crypto11.CkaKeyType)
	return err == nil
}

// refusal tells whether a token said that it can't or won't do this, however
// often it is asked.
func refusal(err error) bool {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_KEY_SIZE_RANGE,
		pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_SENSITIVE,
		pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_DOMAIN_PARAMS_INVALID,
		pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED,
		pkcs11.CKR_TOKEN_WRITE_PROTECTED:
		return true
	}
	return false
}

// told is an error as the keeper's callers know it.
func told(op string, err error) error {
	var ours *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ours):
		return err
	case errors.Is(err, errAbsent):
		return (&fault.Error{Kind: fault.Missing, Op: op, Err: err}).
			WithHint("Check that the settings name the right token, and that it was not restored from an older copy.")
	case errors.Is(err, errHangs):
		return (&fault.Error{Kind: fault.Later, Op: op, Err: err}).
			WithHint("Check the token and its network; if it does not come back, restart the keeper.")
	case refusal(err):
		return (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).
			WithHint("The token does not do this: look up its mechanisms and policy, or choose another algorithm.")
	}
	return (&fault.Error{Kind: fault.Later, Op: op, Err: err}).
		WithHint("Check that the token is there; what needs it waits.")
}
