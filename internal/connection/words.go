package connection

import (
	"encoding/pem"
	"fmt"
	"strings"
)

// quotePS is a string of PowerShell.
// PowerShell takes the typographic quotes for the plain one.
func quotePS(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		if strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) {
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String()
}

// script is what the customer's administrator runs so that his Exchange Online
// lets our mail in, and nobody else's past us.
func script(e *entry, name string) string {
	if found := e.foundConnector(); found != "" {
		return scriptWith("Set-InboundConnector -Identity "+quotePS(found)+" -Enabled $true `", e, name)
	}
	return makeScript(e, name)
}

// makeScript is script where there is no connector for us yet.
func makeScript(e *entry, name string) string {
	return scriptWith("New-InboundConnector -Name "+quotePS(orText(e.Connector, ourConnector))+" -ConnectorType Partner -SenderDomains '*' `", e, name)
}

func scriptWith(command string, e *entry, name string) string {
	return strings.Join([]string{
		"# For an Exchange administrator of Entra tenant " + e.EntraTenant + ", in PowerShell with the module ExchangeOnlineManagement.",
		"# From then on mail from the internet is accepted from this gateway alone: point the MX of the domains at it first.",
		"Connect-ExchangeOnline",
		"Get-InboundConnector | Format-Table Name,ConnectorType,Enabled,TlsSenderCertificateName,RestrictDomainsToCertificate",
		command,
		"  -RequireTls $true -RestrictDomainsToCertificate $true `",
		"  -TlsSenderCertificateName " + quotePS(name) + " `",
		"  -Comment " + quotePS((&microsoft{e: e}).marker()),
	}, "\n") + "\n"
}

// secondConnector is what lets a second certificate name in for the time of a
// change.
func secondConnector(e *entry, name string) string {
	return fmt.Sprintf("New-InboundConnector -Name %s -ConnectorType Partner -SenderDomains '*' -RequireTls $true -RestrictDomainsToCertificate $true -TlsSenderCertificateName %s -Comment %s",
		quotePS(secondName(e.connector())), quotePS(name), quotePS((&microsoft{e: e}).marker()+nextMark))
}

// renameConnector is what leaves the new name alone, whether there is a second
// connector or not.
func renameConnector(e *entry, name string) string {
	connector := e.connector()
	return fmt.Sprintf("Set-InboundConnector -Identity %s -TlsSenderCertificateName %s\nGet-InboundConnector | Where-Object Name -eq %s | Remove-InboundConnector -Confirm:$false",
		quotePS(connector), quotePS(name), quotePS(secondName(connector)))
}

// Fingerprint is a SHA-256 in hex as Postfix and OpenSSL write it.
func Fingerprint(sha string) string {
	sha = strings.ToUpper(sha)
	var b strings.Builder
	for i := 0; i < len(sha); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(sha[i:min(i+2, len(sha))])
	}
	return b.String()
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
