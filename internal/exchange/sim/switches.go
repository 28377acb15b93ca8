package sim

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// check refuses a switch that would answer with what no server says.
func (sw *Switches) check() error {
	if sw.Throttle != "" && !isThrottle(sw.Throttle) {
		return refuse("Throttle must be 4.7.500 to 4.7.699 or 4.7.850 to 4.7.899")
	}
	for _, s := range sw.AllowedAddresses {
		_, e1 := netip.ParseAddr(s)
		if _, e2 := netip.ParsePrefix(s); e1 != nil && e2 != nil {
			return refuse("AllowedAddresses: " + s + " is neither an address nor a range")
		}
	}
	if sw.GraphThrottle < 0 || sw.SignInReads < 0 {
		return refuse("GraphThrottle and SignInReads count from 0")
	}
	return nil
}

func isThrottle(code string) bool {
	detail, ok := strings.CutPrefix(code, "4.7.")
	n, err := strconv.Atoi(detail)
	return ok && err == nil && (n >= 500 && n <= 699 || n >= 850 && n <= 899) && detail == strconv.Itoa(n)
}

func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, refuse(text + " is not a count")
	}
	return n, nil
}

// Switch changes a tenant's switches, as PATCH Simulator does.
func (s *Sim) Switch(tenantID string, change func(*Switches)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.find(tenantID)
	if t == nil {
		return noSuchTenant(tenantID)
	}
	next := t.Switches
	change(&next)
	if err := next.check(); err != nil {
		return err
	}
	t.Switches = next
	return s.disk.saveTenant(t)
}

func noSuchTenant(id string) error {
	return fault.New(fault.Missing, "sim", "there is no tenant "+id).WithHint("`sallyport sim m365 list` prints those that exist.")
}
