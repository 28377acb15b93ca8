package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/api"
)

type doctorCmd struct {
	Verify bool `help:"Check every row and every body too; slow on a large store."`
}

type doctorView struct {
	OK       bool              `json:"ok"`
	Checks   []api.CheckResult `json:"checks"`
	Problems []map[string]any  `json:"problems"`
}

// Run prints what the gateway finds wrong with itself; code 1 when anything
// is.
func (c *doctorCmd) Run(e *env) error {
	v := doctorView{OK: true, Problems: []map[string]any{}}
	raw, err := e.call("GET", "/v1/doctor", nil, nil)
	if err != nil {
		return err
	}
	if err := unmarshal(raw, &v.Checks); err != nil {
		return err
	}
	if c.Verify {
		if err := e.verify(&v); err != nil {
			return err
		}
	}
	for _, check := range v.Checks {
		v.OK = v.OK && check.OK
	}
	if err := e.printDoctor(v); err != nil {
		return err
	}
	if !v.OK {
		return errReported
	}
	return nil
}

// verify adds what the store's own check finds.
func (e *env) verify(v *doctorView) error {
	raw, err := e.call("POST", "/v1/verify", url.Values{}, map[string]any{})
	if err != nil {
		return err
	}
	var found struct {
		Problems []map[string]any `json:"problems"`
	}
	if err := unmarshal(raw, &found); err != nil {
		return err
	}
	v.Problems = append(v.Problems, found.Problems...)
	check := api.CheckResult{Name: "store", OK: len(v.Problems) == 0, Detail: "every row and body is whole"}
	if !check.OK {
		check.Detail = fmt.Sprintf("%d problems", len(v.Problems))
		check.Fix = new("Restore from a backup what is listed; mail that is whole goes on.")
	}
	v.Checks = append(v.Checks, check)
	return nil
}

func (e *env) printDoctor(v doctorView) error {
	if e.flags.JSON {
		return e.printJSON(v)
	}
	var lines []string
	for _, c := range v.Checks {
		mark := "ok  "
		if !c.OK {
			mark = "LOOK"
		}
		lines = append(lines, fmt.Sprintf("%s  %-22s %s", mark, c.Name, c.Detail))
		if c.Fix != nil && !c.OK {
			lines = append(lines, "      fix: "+*c.Fix)
		}
	}
	for _, p := range v.Problems {
		lines = append(lines, fmt.Sprintf("      %v: %v", p["where"], p["what"]))
	}
	_, err := fmt.Fprintln(e.stdout, strings.Join(lines, "\n"))
	return err
}
