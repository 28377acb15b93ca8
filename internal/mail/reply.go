package mail

import "strings"

// ParseReplyText splits the enhanced status code (RFC 3463 2) from the text
// of a reply whose lines are parted by \n and carry no reply code any more.
// RFC 2034 4 repeats the code on each line; it is taken off each line that
// has the same. Without a code enhanced is "" and rest is text.
func ParseReplyText(text string) (enhanced, rest string) {
	n := enhancedLength(text)
	if n == 0 {
		return "", text
	}
	enhanced = text[:n]
	if !strings.Contains(text, "\n") {
		return enhanced, strings.TrimLeft(text[n:], " ")
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if enhancedLength(line) == n && line[:n] == enhanced {
			lines[i] = strings.TrimLeft(line[n:], " ")
		}
	}
	return enhanced, strings.Join(lines, "\n")
}

// enhancedLength is the length of the enhanced code that s begins with, 0 if
// there is none. A space, a line end or nothing must follow it.
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
	if detail == 0 || detail > 3 || end < len(s) && s[end] != ' ' && s[end] != '\n' {
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
