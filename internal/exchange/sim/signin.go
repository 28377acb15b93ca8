package sim

import (
	"encoding/hex"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"
)

// SignIn is one row of the sign-in log, of a success or a failure.
type SignIn struct {
	ID            string // the request id
	Time          time.Time
	Shown         time.Time // from when on the log has it
	AppID         string
	AppName       string
	PrincipalID   string
	ResourceID    string
	ResourceName  string
	Address       string
	UserAgent     string
	CorrelationID string
	ErrorCode     int // 0: a token was issued
	Failure       string
	KeyID         string
	Thumbprint    string // hexadecimal, of the key that was used where it is known
	UTI           string
}

// noteSignIn writes the row of one attempt. The caller holds mu.
func (s *Sim) noteSignIn(a *attempt, uti string, refusal *aadError) error {
	now := s.cfg.Now().UTC()
	row := SignIn{
		ID: a.q.id.String(), Time: now, Shown: now.Add(s.logDelay(a.tenant)), AppID: a.app.AppID, AppName: a.app.DisplayName,
		PrincipalID: a.app.PrincipalID, ResourceID: a.resource, ResourceName: resourceName(a.resource), Address: a.q.ip.String(),
		UserAgent: a.q.UserAgent(), CorrelationID: a.q.Header.Get("client-request-id"), UTI: uti,
	}
	if refusal != nil {
		row.ErrorCode, row.Failure = refusal.code, refusal.text
	}
	if a.key != nil { // a key that is not registered cannot be attributed (facts 3.1)
		row.KeyID, row.Thumbprint = a.key.KeyID, strings.ToUpper(hex.EncodeToString(a.key.sha1()))
	}
	return s.addSignIn(a.tenant, row)
}

// addSignIn puts a row into the log, unless the tenant's logs are dropped.
func (s *Sim) addSignIn(t *tenant, row SignIn) error {
	n := 1
	switch {
	case t.Switches.DropLogs:
		n = 0
	case t.Switches.DuplicateLogs:
		n = 2
	}
	for range n {
		if err := journal(s.disk, signInFile, t.ID, row); err != nil {
			return err
		}
		s.signIns[t.ID] = append(s.signIns[t.ID], row)
	}
	return nil
}

func resourceName(id string) string {
	switch id {
	case "00000003-0000-0000-c000-000000000000":
		return "Microsoft Graph"
	case "00000002-0000-0ff1-ce00-000000000000":
		return "Office 365 Exchange Online"
	case "c5393580-f805-4401-95e8-94b7a6ef2fc2":
		return "Office 365 Management APIs"
	}
	return ""
}

// object is a JSON object as rows are shown and filtered.
type object = map[string]any

// graphTime is how Graph writes a time.
func graphTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

// poor is the v1.0 shape: no token identifier, no key (facts 3.1).
func (r *SignIn) poor(tenantID string) object {
	status := object{"errorCode": r.ErrorCode, "failureReason": nil, "additionalDetails": nil}
	if r.ErrorCode != 0 {
		status["failureReason"] = r.Failure
	}
	return object{
		"id": r.ID, "createdDateTime": graphTime(r.Time), "appId": r.AppID, "appDisplayName": r.AppName,
		"correlationId": r.CorrelationID, "ipAddress": r.Address, "clientAppUsed": nil, "conditionalAccessStatus": conditional(r.ErrorCode),
		"isInteractive": false, "servicePrincipalId": r.PrincipalID, "servicePrincipalName": r.AppName,
		"homeTenantId": tenantID, "resourceTenantId": tenantID, "resourceId": r.ResourceID, "resourceDisplayName": r.ResourceName,
		"userAgent": r.UserAgent, "userId": "", "userDisplayName": nil, "userPrincipalName": nil,
		"riskDetail": "none", "riskState": "none", "riskLevelAggregated": "none", "riskLevelDuringSignIn": "none",
		"riskEventTypes": []string{}, "status": status,
	}
}

func conditional(code int) string {
	if code == 53003 {
		return "failure"
	}
	return "notApplied"
}

// rich is the beta shape.
func (r *SignIn) rich(tenantID string) object {
	o := r.poor(tenantID)
	maps.Copy(o, object{
		"signInEventTypes": []string{"servicePrincipal"}, "uniqueTokenIdentifier": r.UTI, "originalRequestId": r.ID,
		"servicePrincipalCredentialKeyId": r.KeyID, "servicePrincipalCredentialThumbprint": r.Thumbprint,
		"federatedCredentialId": "", "crossTenantAccessType": "none", "resourceServicePrincipalId": r.ResourceID,
		"ipAddressFromResourceProvider": nil, "autonomousSystemNumber": 0, "appliedConditionalAccessPolicies": []object{},
		"tokenIssuerType": "AzureAD", "tokenIssuerName": "", "processingTimeInMilliseconds": 1,
	})
	return o
}

// Audit is one row of the directory audit log.
type Audit struct {
	ID          string
	Time, Shown time.Time
	Activity    string
	Correlation string
	AppID       string // who did it: an application, or the administrator where it is ""
	AppName     string
	PrincipalID string
	Address     string
	UserAgent   string
	TargetID    string
	TargetName  string
	TargetType  string
	Property    string
	Old, New    []string
}

// updateKeys is the activity of a changed keyCredentials list, with its en
// dash and its trailing space (facts 3.6).
const updateKeys = "Update application – Certificates and secrets management "

// addAudit enters one change. The caller holds mu.
func (s *Sim) addAudit(q *request, t *tenant, by *application, row Audit) error {
	now := s.cfg.Now().UTC()
	row.Time, row.Shown = now, now.Add(s.logDelay(t))
	row.Correlation = uuid.NewString()
	row.ID = "Directory_" + row.Correlation + "_" + traceID()[:5] + "_" + q.id.String()[:8]
	row.Address, row.UserAgent = q.ip.String(), q.UserAgent()
	if by != nil {
		row.AppID, row.AppName, row.PrincipalID = by.AppID, by.DisplayName, by.PrincipalID
	}
	if err := journal(s.disk, auditFile, t.ID, row); err != nil {
		return err
	}
	s.audits[t.ID] = append(s.audits[t.ID], row)
	return nil
}

// shown is the row as Graph shows it, in the shape of a real record.
func (r *Audit) shown(tenantDomain string) object {
	by := object{"app": nil, "user": object{"id": nil, "displayName": nil,
		"userPrincipalName": "admin@" + tenantDomain, "ipAddress": r.Address}}
	if r.AppID != "" {
		by = object{"user": nil, "app": object{"appId": r.AppID, "displayName": r.AppName,
			"servicePrincipalId": r.PrincipalID, "servicePrincipalName": nil}}
	}
	return object{
		"id": r.ID, "category": "ApplicationManagement", "correlationId": r.Correlation, "result": "success", "resultReason": "",
		"activityDisplayName": r.Activity, "activityDateTime": graphTime(r.Time), "loggedByService": "Core Directory",
		"operationType": "Update", "initiatedBy": by,
		"additionalDetails": []object{{"key": "User-Agent", "value": r.UserAgent}},
		"targetResources": []object{{
			"id": r.TargetID, "displayName": r.TargetName, "type": r.TargetType, "userPrincipalName": nil, "groupType": nil,
			"modifiedProperties": []object{
				{"displayName": r.Property, "oldValue": quoted(r.Old), "newValue": quoted(r.New)},
				{"displayName": "Included Updated Properties", "oldValue": nil, "newValue": `"` + r.Property + `"`},
			},
		}},
	}
}

// SignIns are all rows of a tenant's sign-in log, also those not shown yet.
func (s *Sim) SignIns(tenantID string) []SignIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]SignIn(nil), s.signIns[tenantID]...)
}
