package mail

// enhancedLength is the length of the enhanced code that s begins with, 0 if
// there is none. A space or nothing must follow it.
func enhancedLength(s string) int {
	if len(s) < len("2.0.0") || s[0] != '2' && s[0] != '4' && s[0] != '5' || s[1] != '.' {
		return 0
	}
	subject := digits(s[2:])
	dot := 2 + subject
	if subject == 0 || subject > 3 || dot == len(s) || s[dot] != '.' {
		return 0
	}
	detail := digits(s[dot+1:])
	end := dot + 1 + detail
	if detail == 0 || detail > 3 || end < len(s) && s[end] != ' ' {
		return 0
	}
	return end
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
