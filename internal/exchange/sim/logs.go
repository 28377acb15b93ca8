package sim

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mostRows is the largest page of a log (facts 3.1).
const mostRows = 1000

// listSignIns is auditLogs/signIns: the rich shape at beta, the poor one at
// v1.0. At beta only interactive sign-ins of users are listed, of which there
// are none here, unless the filter asks for service principals.
func (s *Sim) listSignIns(q *request, who *caller) reply {
	if !who.may("AuditLog.Read.All") {
		return q.forbidden()
	}
	if who.app != nil && !s.withinLimit(who) {
		return q.throttled(10 * time.Second)
	}
	beta := q.path[0] == "beta"
	now := s.cfg.Now()
	rows := []object{}
	for i := range s.signIns[who.tenant.ID] {
		r := &s.signIns[who.tenant.ID][i]
		switch {
		case now.Before(r.Shown):
		case !beta:
			rows = append(rows, r.poor(who.tenant.ID))
		case strings.Contains(q.URL.Query().Get("$filter"), "signInEventTypes"):
			rows = append(rows, r.rich(who.tenant.ID))
		}
	}
	template := (&SignIn{}).poor("")
	if beta {
		template = (&SignIn{}).rich("")
	}
	return s.listAs(q, rows, template, "auditLogs/signIns", "createdDateTime")
}

// withinLimit is the documented limit on reads of this log: 5 requests in 10
// seconds for each application and tenant.
func (s *Sim) withinLimit(who *caller) bool {
	limit := who.tenant.Switches.SignInReads
	if limit == 0 {
		return true
	}
	key, now := who.tenant.ID+" "+who.app.AppID, s.cfg.Now()
	recent := slices.DeleteFunc(s.asked[key], func(t time.Time) bool { return now.Sub(t) >= 10*time.Second })
	ok := len(recent) < limit
	if ok {
		recent = append(recent, now)
	}
	s.asked[key] = recent
	return ok
}

// listAudits is auditLogs/directoryAudits.
func (s *Sim) listAudits(q *request, who *caller) reply {
	if !who.may("AuditLog.Read.All") {
		return q.forbidden()
	}
	now := s.cfg.Now()
	rows := []object{}
	for i := range s.audits[who.tenant.ID] {
		if r := &s.audits[who.tenant.ID][i]; !now.Before(r.Shown) {
			rows = append(rows, r.shown(who.tenant.Domain))
		}
	}
	return s.listAs(q, rows, (&Audit{}).shown(""), "auditLogs/directoryAudits", "activityDateTime")
}

// list is listAs with the first row as the template of what may be asked for.
func (s *Sim) list(q *request, rows []object, context, sortBy string) reply {
	if len(rows) == 0 {
		return s.listAs(q, rows, object{}, context, sortBy)
	}
	return s.listAs(q, rows, rows[0], context, sortBy)
}

// listAs filters, sorts (newest first) and pages rows.
func (s *Sim) listAs(q *request, rows []object, template object, context, sortBy string) reply {
	options, err := s.options(q, "$filter", "$top", "$skiptoken", "$orderby", "$select")
	if err != nil {
		return s.refuseBody(q, err)
	}
	if text := options.Get("$filter"); text != "" {
		f, err := parseFilter(text, func(path string) bool { return has(template, path) })
		if err != nil {
			return q.failed(err)
		}
		rows = slices.DeleteFunc(rows, func(r object) bool { return !f.match(r) })
	}
	if rows, err = sorted(rows, options.Get("$orderby"), sortBy); err != nil {
		return q.failed(err)
	}
	rows, next, err := page(rows, options)
	if err != nil {
		return q.failed(err)
	}
	if fields := options.Get("$select"); fields != "" {
		for i := range rows {
			rows[i] = only(rows[i], strings.Split(fields, ","))
		}
	}
	out := object{"@odata.context": "https://graph.microsoft.com/" + q.path[0] + "/$metadata#" + context, "value": rows}
	if next != "" {
		options.Set("$skiptoken", next)
		out["@odata.nextLink"] = "https://" + q.Host + q.URL.Path + "?" + options.Encode()
	}
	return reply{status: http.StatusOK, body: out}
}

// has reports whether rows of a template have a property. Below status and
// initiatedBy the template shows which.
func has(template object, path string) bool {
	var v any = template
	for name := range strings.SplitSeq(path, "/") {
		o, ok := v.(object)
		if !ok {
			return false
		}
		if v, ok = o[name]; !ok {
			return false
		}
	}
	return true
}

// sorted orders rows by their time, newest first unless asked otherwise.
func sorted(rows []object, order, by string) ([]object, error) {
	if by == "" {
		if order != "" {
			return nil, refuse("$orderby is not supported here")
		}
		return rows, nil
	}
	descending := true
	switch order {
	case "", by + " desc":
	case by, by + " asc":
		descending = false
	default:
		return nil, refuse("$orderby supports " + by + " alone")
	}
	slices.SortStableFunc(rows, func(a, b object) int {
		x, _ := a[by].(string) // one form and one zone: text order is time order
		y, _ := b[by].(string)
		if descending {
			x, y = y, x
		}
		return strings.Compare(x, y)
	})
	return rows, nil
}

// page cuts one page out. The token is the id of the last row that was given,
// so that rows which come in between do not shift the pages.
func page(rows []object, options url.Values) (cut []object, next string, err error) {
	top := mostRows
	if text := options.Get("$top"); text != "" {
		if top, err = strconv.Atoi(text); err != nil || top < 1 || top > mostRows {
			return nil, "", refuse("$top must be from 1 to " + strconv.Itoa(mostRows))
		}
	}
	if token := options.Get("$skiptoken"); token != "" {
		at, err := position(rows, token)
		if err != nil {
			return nil, "", err
		}
		rows = rows[at:]
	}
	if len(rows) <= top {
		return rows, "", nil
	}
	last, _ := rows[top-1]["id"].(string)
	nth := 0 // a duplicated row has the same id
	for _, r := range rows[:top] {
		if r["id"] == last {
			nth++
		}
	}
	return rows[:top], base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(nth) + " " + last)), nil
}

// position finds where the page after a token begins.
func position(rows []object, token string) (int, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	text, id, ok := strings.Cut(string(raw), " ")
	nth, e := strconv.Atoi(text)
	if err != nil || !ok || e != nil {
		return 0, refuse("$skiptoken is not one that was given")
	}
	for i, r := range rows {
		if r["id"] == id {
			if nth--; nth <= 0 {
				return i + 1, nil
			}
		}
	}
	return 0, refuse("$skiptoken names a row that is gone")
}
