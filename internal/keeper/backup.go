package keeper

// RestoredMark is the name under which a backup remembers that it is one.
const RestoredMark = "restored"
