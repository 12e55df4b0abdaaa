//! QR codes: drawn in the terminal, written as PNG, read from a picture.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use coffer_node::control::{ControlError, ErrorKind};
use image::{GrayImage, ImageEncoder, ImageReader, Limits, Luma};
use qrcode::{Color, EcLevel, QrCode};

use crate::error::Failure;

/// Light modules around the code, as ISO/IEC 18004 asks for. In the terminal two do, and keep it within more windows.
const PNG_MARGIN: u32 = 4;
const TERMINAL_MARGIN: usize = 2;
/// Pixels of a module in the PNG: large enough for a photo of a screen.
const PNG_SCALE: u32 = 8;
/// Largest picture read, in bytes of the file and pixels a side: what phones take is far below.
const MAX_FILE: u64 = 64 << 20;
const MAX_SIDE: u32 = 16_384;
/// Memory that decoding a picture may take.
const MAX_DECODED: u64 = 512 << 20;
/// A photo where no code was found is tried again scaled down to this: noise vanishes, edges stay.
const SECOND_TRY_SIDE: u32 = 1_200;

/// A QR code.
pub struct Qr {
    modules: Vec<Color>,
    width: usize,
}

impl Qr {
    /// The code for a text, with the least redundancy (it is read from a screen, and smaller is easier to read there).
    pub fn new(text: &str) -> Result<Qr, Failure> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(|error| {
            ControlError::internal(format!("the link does not fit into a QR code: {error}"))
        })?;
        Ok(Qr {
            width: code.width(),
            modules: code.into_colors(),
        })
    }

    /// Columns of the drawing in a terminal.
    pub fn columns(&self) -> usize {
        self.width + 2 * TERMINAL_MARGIN
    }

    /// The code as lines of half blocks. With `colours`, black on white whatever the terminal's own colours are;
    /// without, for a terminal (or a page) with dark letters on light ground.
    pub fn draw(&self, colours: bool) -> String {
        let side = self.columns();
        let mut text = String::new();
        for row in (0..side).step_by(2) {
            if colours {
                text.push_str("\x1b[38;5;16;48;5;231m");
            }
            for column in 0..side {
                text.push(match (self.dark(column, row), self.dark(column, row + 1)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            text.push_str(if colours { "\x1b[0m\n" } else { "\n" });
        }
        text
    }

    /// Whether the module is dark, counted from the margin's corner.
    fn dark(&self, column: usize, row: usize) -> bool {
        let (Some(x), Some(y)) = (
            column.checked_sub(TERMINAL_MARGIN),
            row.checked_sub(TERMINAL_MARGIN),
        ) else {
            return false;
        };
        x < self.width && y < self.width && self.modules[y * self.width + x] == Color::Dark
    }

    /// Writes the code as a PNG that only its owner can read: it lets a device in.
    pub fn save_png(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: &std::io::Error| {
            ControlError::io(format_args!("write {}", path.display()), error)
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(&error))?;
        let image = self.image();
        let mut out = BufWriter::new(file);
        image::codecs::png::PngEncoder::new(&mut out)
            .write_image(
                image.as_raw(),
                image.width(),
                image.height(),
                image::ExtendedColorType::L8,
            )
            .map_err(|error| match error {
                image::ImageError::IoError(error) => failed(&error),
                other => ControlError::internal(format!("cannot make a PNG: {other}")),
            })?;
        Ok(out.flush().map_err(|error| failed(&error))?)
    }

    /// The code as a picture within a page.
    pub fn svg(&self) -> String {
        let margin = PNG_MARGIN as usize;
        let side = self.width + 2 * margin;
        let mut path = String::new();
        for (at, _) in self
            .modules
            .iter()
            .enumerate()
            .filter(|(_, module)| **module == Color::Dark)
        {
            let (x, y) = (at % self.width + margin, at / self.width + margin);
            path.push_str(&format!("M{x} {y}h1v1h-1z"));
        }
        format!(
            "<svg viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\"><rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/><path d=\"{path}\" fill=\"#000\"/></svg>"
        )
    }

    fn image(&self) -> GrayImage {
        let width = u32::try_from(self.width).unwrap_or(0); // at most 177
        let side = (width + 2 * PNG_MARGIN) * PNG_SCALE;
        GrayImage::from_fn(side, side, |x, y| {
            let inside = |pixel: u32| {
                (pixel / PNG_SCALE)
                    .checked_sub(PNG_MARGIN)
                    .filter(|module| *module < width)
            };
            let dark = match (inside(x), inside(y)) {
                (Some(x), Some(y)) => {
                    self.modules[y as usize * self.width + x as usize] == Color::Dark
                }
                _ => false,
            };
            Luma([if dark { 0 } else { 255 }])
        })
    }
}

/// Reads the text of the QR code in a PNG or JPEG. The first code whose text `wanted` accepts counts.
pub fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<String, Failure> {
    let image = open(path)?;
    let mut texts = codes(&image);
    if texts.is_empty() && image.width().max(image.height()) > SECOND_TRY_SIDE {
        let factor = f64::from(SECOND_TRY_SIDE) / f64::from(image.width().max(image.height()));
        let scaled = |side: u32| ((f64::from(side) * factor) as u32).max(1);
        let (width, height) = (scaled(image.width()), scaled(image.height()));
        texts = codes(&image::imageops::resize(
            &image,
            width,
            height,
            image::imageops::FilterType::Triangle,
        ));
    }
    if texts.is_empty() {
        let message = format!("there is no readable QR code in {}", path.display());
        return Err(ControlError::new(ErrorKind::Damaged, message)
            .with_code("no-qr-code")
            .into());
    }
    texts.into_iter().find(|text| wanted(text)).ok_or_else(|| {
        let message = format!(
            "the QR code in {} is not an invitation to a vault",
            path.display()
        );
        ControlError::new(ErrorKind::Damaged, message)
            .with_code("foreign-qr-code")
            .into()
    })
}

fn open(path: &Path) -> Result<GrayImage, Failure> {
    let failed =
        |error: &std::io::Error| ControlError::io(format_args!("read {}", path.display()), error);
    let size = std::fs::metadata(path)
        .map_err(|error| failed(&error))?
        .len();
    let no_picture = |what: String| {
        let message = format!(
            "{} is not a picture that can be read: {what}",
            path.display()
        );
        ControlError::new(ErrorKind::Damaged, message).with_code("no-qr-code")
    };
    if size > MAX_FILE {
        return Err(no_picture(format!("it is larger than {} MiB", MAX_FILE >> 20)).into());
    }
    let mut reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|error| failed(&error))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    Ok(reader
        .decode()
        .map_err(|error| no_picture(error.to_string()))?
        .into_luma8())
}

/// All codes that can be read. Pictures are foreign bytes: a panic of the decoder is a picture without a code.
fn codes(image: &GrayImage) -> Vec<String> {
    let width = image.width() as usize;
    let (raw, height) = (image.as_raw(), image.height() as usize);
    let found = catch_unwind(AssertUnwindSafe(|| {
        let mut prepared =
            rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| raw[y * width + x]);
        prepared
            .detect_grids()
            .iter()
            .filter_map(|grid| grid.decode().ok())
            .map(|(_, text)| text)
            .collect()
    }));
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> String {
        format!(
            "coffer:pair/1/{}",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".repeat(9)
        )
    }

    #[test]
    fn what_is_drawn_as_png_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code.png");
        Qr::new(&link()).unwrap().save_png(&path).unwrap();
        assert_eq!(
            read(&path, |text| text.starts_with("coffer:")).unwrap(),
            link()
        );
        let Err(Failure::Control(error)) = read(&path, |_| false) else {
            panic!("accepted")
        };
        assert_eq!(error.code.as_deref(), Some("foreign-qr-code"));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn what_is_drawn_in_a_terminal_is_the_same_code() {
        let qr = Qr::new(&link()).unwrap();
        let drawn = qr.draw(false);
        let rows: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        assert!(rows.iter().all(|row| row.len() == qr.columns()));
        // Each half block is two modules; eight pixels a module make a picture of it.
        let side = qr.columns();
        let picture = GrayImage::from_fn(side as u32 * 8, side as u32 * 8, |x, y| {
            let (column, row) = (x as usize / 8, y as usize / 8);
            let dark = match rows[row / 2][column] {
                '█' => true,
                '▀' => row % 2 == 0,
                '▄' => row % 2 == 1,
                _ => false,
            };
            Luma([if dark { 0 } else { 255 }])
        });
        assert_eq!(codes(&picture), [link()]);
        assert_eq!(
            qr.draw(true)
                .replace("\x1b[38;5;16;48;5;231m", "")
                .replace("\x1b[0m", ""),
            drawn
        );
    }

    #[test]
    fn a_large_photo_of_a_code_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("photo.jpg");
        let code = Qr::new(&link()).unwrap().image();
        let mut photo = GrayImage::from_pixel(2400, 1800, Luma([140]));
        image::imageops::overlay(&mut photo, &code, 700, 500);
        photo.save(&path).unwrap();
        assert_eq!(read(&path, |_| true).unwrap(), link());
    }

    #[test]
    fn pictures_without_a_code_and_files_that_are_none_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let code_of = |path: &Path| match read(path, |_| true) {
            Err(Failure::Control(error)) => (error.kind, error.code),
            _ => panic!("read"),
        };
        let blank = dir.path().join("blank.png");
        GrayImage::from_pixel(300, 300, Luma([255]))
            .save(&blank)
            .unwrap();
        assert_eq!(
            code_of(&blank),
            (ErrorKind::Damaged, Some("no-qr-code".into()))
        );
        let text = dir.path().join("text.png");
        std::fs::write(&text, b"not a picture").unwrap();
        assert_eq!(
            code_of(&text),
            (ErrorKind::Damaged, Some("no-qr-code".into()))
        );
        assert_eq!(
            code_of(&dir.path().join("absent.png")),
            (ErrorKind::Io, None)
        );
    }
}
