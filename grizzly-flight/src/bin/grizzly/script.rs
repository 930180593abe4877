//! Statements in a text: where each ends, without parsing them.

/// The statements that `text` completes with a semicolon, without it, and what is left behind the last one.
pub(crate) fn split(text: &str) -> (Vec<&str>, &str) {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(';') {
            push(&mut statements, &text[start..at]);
            at += 1;
            start = at;
        } else {
            at += lexeme(rest);
        }
    }
    (statements, &text[start..])
}

/// All statements of a script; the last one needs no semicolon.
pub(crate) fn all(text: &str) -> Vec<&str> {
    let (mut statements, rest) = split(text);
    push(&mut statements, rest);
    statements
}

/// Whether there is nothing but white space and comments.
pub(crate) fn is_blank(text: &str) -> bool {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return true;
        }
        if !(rest.starts_with("--") || rest.starts_with("/*")) {
            return false;
        }
        rest = &rest[lexeme(rest)..];
    }
}

fn push<'a>(statements: &mut Vec<&'a str>, statement: &'a str) {
    if !is_blank(statement) {
        statements.push(statement.trim());
    }
}

/// Bytes of the string, quoted name, comment, or single character at the start of `text`. What is never closed
/// reaches to the end.
fn lexeme(text: &str) -> usize {
    let end = text.len();
    let Some(first) = text.chars().next() else { return end };
    match first {
        '\'' | '"' => text[1..].find(first).map_or(end, |closing| closing + 2),
        '-' if text.starts_with("--") => text.find('\n').map_or(end, |line| line + 1),
        '/' if text.starts_with("/*") => block_comment(text),
        '$' => dollar_quoted(text).unwrap_or(1),
        other => other.len_utf8(),
    }
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// `$tag$ … $tag$`; `None` for a parameter like `$1`.
fn dollar_quoted(text: &str) -> Option<usize> {
    let tag_end = text[1..].find('$')? + 2;
    let tag = &text[..tag_end];
    let name = &tag[1..tag.len() - 1];
    let is_name =
        name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    is_name.then(|| text[tag_end..].find(tag).map_or(text.len(), |closing| tag_end + closing + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_strings_names_and_comments_end_nothing() {
        let text = "select ';', 'it''s;' -- ;\n, \";\" /* ; /* ; */ ; */ from t; select $$;$$, $1; select 2";
        let statements = all(text);
        assert_eq!(statements.len(), 3, "{statements:?}");
        assert_eq!(&statements[1..], ["select $$;$$, $1", "select 2"]);
    }

    #[test]
    fn an_unfinished_statement_is_left_over() {
        assert_eq!(split("select 1; select 'a;"), (vec!["select 1"], " select 'a;"));
        assert_eq!(split("select 1"), (vec![], "select 1"));
        assert_eq!(split("; ;-- nothing\n;"), (vec![], ""));
    }

    #[test]
    fn blank_is_what_says_nothing() {
        for blank in ["", " \n", "-- x", "/* x */ -- y\n"] {
            assert!(is_blank(blank), "{blank}");
        }
        assert!(!is_blank("-- x\nselect"));
    }
}
