package main

// globals are accepted before and after the verb.
type globals struct {
	Data      string `help:"The gateway's folder." default:"./data" env:"SALLYPORT_DATA" placeholder:"DIR"`
	API       string `help:"Address of the API, instead of the folder's; to init, where it is to listen." env:"SALLYPORT_API" placeholder:"URL"`
	TokenFile string `help:"File with the API token, instead of the folder's." placeholder:"FILE"`
	JSON      bool   `help:"Print JSON, and nothing else on standard output."`
}

// commands is every verb of the contract.
type commands struct {
	globals

	Init    initCmd    `cmd:"" help:"Make the folder that serve runs from."`
	Serve   serveCmd   `cmd:"" help:"Run the gateway."`
	Keeper  keeperCmd  `cmd:"" help:"Keep keys, secrets and the ledger of one region."`
	Demo    demoCmd    `cmd:"" help:"Show the gateway at work on loopback, kill it once, and count."`
	Doctor  doctorCmd  `cmd:"" help:"Say what is wrong, and what to do about it."`
	Version versionCmd `cmd:"" help:"Print the version."`
	Backup  backupCmd  `cmd:"" help:"Write everything into one file, while the gateway runs."`
	Restore restoreCmd `cmd:"" help:"Fill an empty folder from a backup."`

	Tenant     tenantCmd     `cmd:"" help:"Customer organisations."`
	Domain     domainCmd     `cmd:"" help:"Domains of a tenant."`
	Directory  directoryCmd  `cmd:"" help:"Recipients of a tenant."`
	Connection connectionCmd `cmd:"" help:"Connections to a tenant's systems."`
	Identity   identityCmd   `cmd:"" help:"Certificates by which partners know us; their keys never leave the keeper."`
	Credential credentialCmd `cmd:"" help:"Passwords: of connections, and of users who submit mail."`
	Token      tokenCmd      `cmd:"" help:"API tokens."`
	Message    messageCmd    `cmd:"" help:"Where a message is, what happened, and why."`
	Queue      queueCmd      `cmd:"" help:"Mail that waits."`
	Held       heldCmd       `cmd:"" help:"Mail that is held."`
	Stop       stopCmd       `cmd:"" help:"Stop switches: keep mail of a scope from leaving."`
	Sender     senderCmd     `cmd:"" help:"The operator's own sender block and allow lists."`
	Refusal    refusalCmd    `cmd:"" help:"What was refused in the SMTP dialogue."`
	Ledger     ledgerCmd     `cmd:"" help:"Who did what: the ledger of a region, and whether it is whole."`
	Operator   operatorCmd   `cmd:"" help:"Keys of the people who sign orders."`
	Order      orderCmd      `cmd:"" help:"What only people can tell the keeper, over their own signatures."`
	Decoy      decoyCmd      `cmd:"" help:"Credentials and identities that nothing legitimate uses."`
	Import     importCmd     `cmd:"" help:"Take over another server's settings."`
	Sim        simCmd        `cmd:"" help:"Simulate the systems of others, for trying out and for drills."`
}
