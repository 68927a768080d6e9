//! Tables as kubectl prints them: upper-case headers, columns three spaces apart, no lines.

/// Between two columns.
const GAP: &str = "   ";
/// Where nothing is known, as kubectl has it.
pub const NONE: &str = "<none>";

/// Whether colours may be used. None is needed to understand the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With ANSI colours.
    Coloured,
}

/// What a cell says, for its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Neutral,
    /// All is well.
    Good,
    /// To be looked at.
    Doubtful,
    /// It does not work.
    Bad,
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell that is coloured where colours are used.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    /// A value that may not be known.
    pub fn or_none(value: Option<impl ToString>) -> Self {
        let text = value.map(|v| v.to_string()).filter(|text| !text.is_empty());
        Self::from(text.unwrap_or_else(|| NONE.to_owned()))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tone: Tone::Neutral }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

/// Rows under a header.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(head: Vec<&'static str>) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The text, each line with its line break.
    pub fn render(&self, style: Style) -> String {
        let head: Vec<Cell> = self.head.iter().map(|name| Cell::from(*name)).collect();
        let mut widths = vec![0; self.head.len()];
        for row in std::iter::once(&head).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        std::iter::once(&head).chain(&self.rows).map(|row| line(row, &widths, style)).collect()
    }
}

fn line(cells: &[Cell], widths: &[usize], style: Style) -> String {
    let mut text = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if index > 0 {
            text.push_str(GAP);
        }
        text.push_str(&paint(&cell.text, cell.tone, style));
        // Nothing follows the last one, and a line that ends in spaces is a nuisance to who copies it.
        if index + 1 < cells.len() {
            text.extend(std::iter::repeat_n(' ', width - cell.text.chars().count()));
        }
    }
    format!("{}\n", text.trim_end())
}

/// The text in the colour of what it says.
pub fn paint(text: &str, tone: Tone, style: Style) -> String {
    let code = match (style, tone) {
        (Style::Plain, _) | (_, Tone::Neutral) => return text.to_owned(),
        (Style::Coloured, Tone::Good) => "32",
        (Style::Coloured, Tone::Doubtful) => "33",
        (Style::Coloured, Tone::Bad) => "31",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec!["NAME", "READY", "MESSAGE"]);
        table.row(vec!["a".into(), Cell::toned("True", Tone::Good), "fine".into()]);
        table.row(vec!["longer".into(), Cell::toned("False", Tone::Bad), Cell::or_none(None::<&str>)]);
        table.row(vec!["b".into(), "".into(), "".into()]);
        table
    }

    #[test]
    fn columns_are_three_spaces_apart_and_lines_end_in_none() {
        let expected = "NAME     READY   MESSAGE\na        True    fine\nlonger   False   <none>\nb\n";
        assert_eq!(table().render(Style::Plain), expected);
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let coloured = table().render(Style::Coloured);
        assert!(coloured.contains("\u{1b}[32mTrue\u{1b}[0m    fine"), "{coloured:?}");
        assert!(coloured.contains("\u{1b}[31mFalse\u{1b}[0m   <none>"), "{coloured:?}");
        let mut plain = coloured;
        for code in ["\u{1b}[32m", "\u{1b}[31m", "\u{1b}[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, table().render(Style::Plain));
    }
}
