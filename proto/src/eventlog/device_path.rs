//! `EFI_DEVICE_PATH_PROTOCOL`, for words only: no digest that this project knows covers a device path alone.

use std::fmt::Write as _;

use super::{
    reader::{DataError, LeReader},
    text,
};

/// Nodes that are read; real paths have up to ten.
pub const MAX_NODES: usize = 64;
/// Longest rendered path.
const MAX_SHOWN_CHARS: usize = 1024;
/// Type and length of a node.
const HEADER_BYTES: u16 = 4;

/// One node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Type.
    pub kind: u8,
    /// Sub-type.
    pub sub_kind: u8,
    /// What follows the header.
    pub body: &'a [u8],
}

impl Node<'_> {
    /// Ends the whole path.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        self.kind == 0x7f && self.sub_kind == 0xff
    }
}

/// Nodes front to back, until the end node, the end of the bytes, an error or [`MAX_NODES`]. A node is at least its
/// header, so the reading always advances.
#[derive(Clone, Debug)]
pub struct Nodes<'a> {
    reader: LeReader<'a>,
    left: usize,
}

impl<'a> Nodes<'a> {
    /// Reads a path.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { reader: LeReader::new(bytes), left: MAX_NODES }
    }

    fn node(&mut self) -> Result<Node<'a>, DataError> {
        let kind = self.reader.u8("device path node")?;
        let sub_kind = self.reader.u8("device path node")?;
        let length = self.reader.u16("device path node")?;
        let Some(body) = length.checked_sub(HEADER_BYTES) else {
            return Err(self.reader.error("a device path node is shorter than its header"));
        };
        Ok(Node { kind, sub_kind, body: self.reader.bytes(body.into(), "device path node")? })
    }
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Result<Node<'a>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 || self.reader.rest().is_empty() {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        let node = self.node();
        match &node {
            Ok(node) if node.is_end() => {
                self.left = 0;
                None
            }
            Ok(_) => Some(node),
            Err(_) => {
                self.left = 0;
                Some(node)
            }
        }
    }
}

/// A path for people, `PciRoot(0)/Pci(0x1,0x0)/HD(1,…)/\EFI\BOOT\BOOTX64.EFI`; what cannot be read is `…`.
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    let mut out = String::new();
    for node in Nodes::new(bytes) {
        if !out.is_empty() {
            out.push('/');
        }
        match node {
            Ok(node) => show_node(&node, &mut out),
            Err(_) => out.push('…'),
        }
        if out.len() > MAX_SHOWN_CHARS {
            out.push('…');
            break;
        }
    }
    out
}

/// The file of a path's last file node, `\EFI\BOOT\BOOTX64.EFI`.
#[must_use]
pub fn file(bytes: &[u8]) -> Option<String> {
    let mut out = None;
    for node in Nodes::new(bytes).map_while(Result::ok) {
        if (node.kind, node.sub_kind) == (4, 4) {
            out = Some(text::utf16(node.body).chars().take(MAX_SHOWN_CHARS).collect());
        }
    }
    out
}

fn show_node(node: &Node<'_>, out: &mut String) {
    let mut reader = LeReader::new(node.body);
    let shown = match (node.kind, node.sub_kind) {
        (1, 1) => reader
            .array::<2>("PCI")
            .map(|[function, device]| format!("Pci({device:#x},{function:#x})")),
        (1, 4) => reader.guid("vendor").map(|guid| format!("VenHw({guid})")),
        (2, 1) => acpi(&mut reader),
        (3, 1) => reader.u16("ATAPI").map(|_| "Ata".to_owned()),
        (3, 5) => reader
            .array::<2>("USB")
            .map(|[port, interface]| format!("USB({port:#x},{interface:#x})")),
        (3, 10) => reader.guid("vendor").map(|guid| format!("VenMsg({guid})")),
        (3, 11) => reader.array::<6>("MAC").map(|mac| format!("MAC({})", hex::encode(mac))),
        (3, 12) => Ok("IPv4".to_owned()),
        (3, 13) => Ok("IPv6".to_owned()),
        (3, 18) => reader.u16("SATA").map(|port| format!("Sata({port:#x})")),
        (3, 23) => reader.u32("NVMe").map(|namespace| format!("NVMe({namespace:#x})")),
        (3, 24) => Ok(format!("Uri({})", String::from_utf8_lossy(node.body))),
        (3, 2) => reader.array::<4>("SCSI").map(|[a, b, c, d]| {
            let (target, lun) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
            format!("Scsi({target:#x},{lun:#x})")
        }),
        (4, 1) => hard_drive(&mut reader),
        (4, 2) => reader.u32("CD-ROM").map(|entry| format!("CDROM({entry:#x})")),
        (4, 3) => reader.guid("vendor").map(|guid| format!("VenMedia({guid})")),
        (4, 4) => Ok(text::utf16(node.body)),
        (4, 6) => reader.guid("file").map(|guid| format!("FvFile({guid})")),
        (4, 7) => reader.guid("volume").map(|guid| format!("Fv({guid})")),
        (4, 8) => Ok("Offset".to_owned()),
        (5, 1) => {
            Ok(format!("BBS({})", String::from_utf8_lossy(node.body.get(4..).unwrap_or_default())))
        }
        (kind, sub_kind) => Ok(format!("Path({kind},{sub_kind})")),
    };
    match shown {
        Ok(text) => out.extend(text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_CHARS)),
        Err(_) => {
            let _ = write!(out, "Path({},{})", node.kind, node.sub_kind);
        }
    }
}

fn acpi(reader: &mut LeReader<'_>) -> Result<String, DataError> {
    let (id, unique) = (reader.u32("ACPI")?, reader.u32("ACPI")?);
    // PNP0A03 and PNP0A08, compressed.
    Ok(match id {
        0x0a03_41d0 => format!("PciRoot({unique:#x})"),
        0x0a08_41d0 => format!("PcieRoot({unique:#x})"),
        _ => format!("Acpi({id:#x},{unique:#x})"),
    })
}

fn hard_drive(reader: &mut LeReader<'_>) -> Result<String, DataError> {
    let number = reader.u32("partition")?;
    reader.bytes(16, "partition")?;
    let signature = reader.guid("partition")?;
    Ok(format!("HD({number},{signature})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: u8, sub_kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, sub_kind];
        out.extend(u16::try_from(body.len() + 4).expect("short").to_le_bytes());
        out.extend(body);
        out
    }

    #[test]
    fn a_path_is_shown_and_its_file_found() {
        let mut path = node(2, 1, &[0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0]);
        path.extend(node(1, 1, &[2, 0x1f]));
        path.extend(node(4, 4, &text::to_utf16("\\EFI\\a.efi\0")));
        path.extend(node(0x7f, 0xff, &[]));
        path.extend(b"whatever");
        assert_eq!(show(&path), "PciRoot(0x0)/Pci(0x1f,0x2)/\\EFI\\a.efi");
        assert_eq!(file(&path).as_deref(), Some("\\EFI\\a.efi"));
    }

    #[test]
    fn a_node_that_would_not_advance_ends_the_reading() {
        let path = [4, 4, 0, 0, 4, 4, 0, 0];
        let nodes: Vec<_> = Nodes::new(&path).collect();
        assert_eq!(nodes.len(), 1);
        assert_eq!(
            nodes.first().and_then(|node| node.clone().err()),
            Some(DataError { at: 4, what: "a device path node is shorter than its header" })
        );
        assert_eq!(show(&path), "…");
    }

    #[test]
    fn endless_paths_end() {
        let path: Vec<u8> = std::iter::repeat_n(node(1, 1, &[0, 0]), 10_000).flatten().collect();
        assert_eq!(Nodes::new(&path).count(), MAX_NODES);
        assert!(show(&path).len() < 2 * MAX_SHOWN_CHARS);
    }
}
