//! Cases that found something, made short, with what it was.

use super::case::{Act, Case, Step};
use super::people::Deed;

/// A case that found something.
pub struct Found {
    /// What it was.
    pub what: &'static str,
    devices: usize,
    nature: u64,
    calm: bool,
    steps: &'static [(usize, Act, u64)],
}

impl Found {
    /// The case.
    pub fn case(&self) -> Case {
        let steps = self.steps.iter();
        let steps = steps.map(|(device, act, dice)| Step {
            device: *device,
            act: *act,
            dice: *dice,
        });
        Case {
            devices: self.devices,
            nature: self.nature,
            calm: self.calm,
            steps: steps.collect(),
        }
    }
}

/// All of them.
pub const FOUND: [Found; 9] = [
    Found {
        what: "a file that got a conflict name from the tree was not deleted when it was deleted on disk",
        devices: 4,
        nature: 0xcb78576ca160fb85,
        calm: false,
        steps: &[
            (3, Act::Deed(Deed::Write), 0xa654b605f6ddfe26),
            (1, Act::Switch, 0x13c5cdeec3c4ceae),
            (3, Act::Kill, 0xb7ff0f948638bbc3),
            (0, Act::Pass, 0x31bf2a1d1a930bf8),
            (0, Act::Pass, 0xb1f153fe0b3bbd00),
            (1, Act::Deed(Deed::BeginWriting), 0x9e1ad4179a27ffe),
            (3, Act::Deed(Deed::MoveOver), 0x156e996f8d472960),
            (1, Act::Deed(Deed::MakeFolder), 0x4a5521e21e68b227),
            (1, Act::Pass, 0xe88ec8653e3d0424),
            (1, Act::Deed(Deed::GoOnWriting), 0x5d5c36dd115cdb59),
            (1, Act::Deed(Deed::Delete), 0xcf69e54bb2d3f8cb),
        ],
    },
    Found {
        what: "of two deletions at the same time only the later one counted, and what the other had seen came back",
        devices: 2,
        nature: 0xcb643ac0c24e64b5,
        calm: false,
        steps: &[
            (0, Act::Deed(Deed::MakeFolder), 0x79ba6ed174db4102),
            (0, Act::Events, 0xbb5f2f7797c4c2ad),
            (0, Act::Deed(Deed::Write), 0x53009a0e015f6277),
            (1, Act::Exchange, 0xf82206dc5817d236),
            (0, Act::Deed(Deed::MoveOut), 0xf95e3a69eb4bc306),
            (1, Act::Pass, 0x20c92483b9714667),
            (1, Act::Deed(Deed::DeleteTree), 0xaece31c2022cc2ab),
            (1, Act::Deed(Deed::BeginWriting), 0x3115f264dd7189da),
            (0, Act::Pass, 0xf495f7024479429e),
        ],
    },
    Found {
        what: "a row went over to the file that its file was one with, and where its bytes are did not",
        devices: 4,
        nature: 0xeb2f352f7066925a,
        calm: false,
        steps: &[
            (1, Act::Unplug, 0x87965ccd2be18b5b),
            (3, Act::Events, 0x8cf195d75a6ef22b),
            (3, Act::Deed(Deed::Write), 0x2b2b0910601dc80a),
            (3, Act::Deed(Deed::Rename), 0x413723b044b60e8f),
            (1, Act::PassLong, 0x79ce95f82b8e291e),
            (3, Act::Exchange, 0x843c670453f60102),
            (3, Act::Exchange, 0x8d492acba6c5aa12),
            (2, Act::Pass, 0x54eeabc6b59e36d4),
            (3, Act::Kill, 0x576f9b41ca7c72d4),
            (0, Act::Pass, 0x3767d84ff1713120),
            (0, Act::Deed(Deed::SaveWithBackup), 0x74ba3fb4507b8e8f),
            (2, Act::Deed(Deed::Permit), 0x5c712e806cd75064),
            (3, Act::Deed(Deed::SaveWithBackup), 0x7ef3e175dba1bed6),
            (0, Act::Restore, 0x3fc4670a0d2895c6),
            (3, Act::Deed(Deed::Rename), 0xfa1bbd5bbcbfee3a),
            (2, Act::Deed(Deed::Swap), 0x5ffddb48e8d06c78),
            (3, Act::Events, 0x82b0a0861883c278),
        ],
    },
    Found {
        what: "(of the oracle) whoever deletes the only copy of a content of a file that another moves, loses it",
        devices: 4,
        nature: 0x3d2869e23e9a58c3,
        calm: false,
        steps: &[
            (2, Act::Deed(Deed::Write), 0x2105fc66c5b598b3),
            (1, Act::PassLong, 0x7af6b0c713b37591),
            (2, Act::Exchange, 0x4aaab2c3751fc713),
            (1, Act::Deed(Deed::Rename), 0x819520d193bf891f),
            (0, Act::Intrude(Deed::MoveOver), 0xf49d76c7737de0df),
            (0, Act::Exchange, 0x93f0aed2a033a8d2),
            (1, Act::Deed(Deed::Rename), 0xf6c551acd593cbf8),
            (0, Act::Events, 0x8a511499f99ed180),
            (0, Act::Deed(Deed::BeginWriting), 0xfc933cbb5043241),
            (0, Act::Deed(Deed::FolderForFile), 0x5f0a7e837f7308c),
        ],
    },
    Found {
        what: "power lost between taking a file from a folder and removing the folder left a row without a folder",
        devices: 3,
        nature: 0x3800cbe0bdaf9dba,
        calm: true,
        steps: &[
            (2, Act::Deed(Deed::MakeFolder), 0xca38b2b3648e6a5e),
            (0, Act::Deed(Deed::Write), 0x3d4a75c3200cde97),
            (1, Act::Deed(Deed::Write), 0x2908cc5304db3d6e),
            (2, Act::Fuse, 0x64fa3690e04764f8),
            (0, Act::Deed(Deed::MoveOut), 0xca945621c95c254a),
            (1, Act::Exchange, 0xd5dca046b9feae9c),
        ],
    },
    Found {
        what: "a folder that got the inode number of the file that it replaced was taken for a conflict",
        devices: 3,
        nature: 0xc919851878bfd698,
        calm: true,
        steps: &[
            (2, Act::Events, 0xa34cb4e87d8c0e67),
            (2, Act::Deed(Deed::Write), 0xef5153f2cc266226),
            (2, Act::Deed(Deed::FolderForFile), 0x58acfb7fdc7b0b08),
        ],
    },
    Found {
        what: "a note of what was about to be done came back with a loss of power, and undid what people did since",
        devices: 3,
        nature: 0xbeedae6cf26acbba,
        calm: true,
        steps: &[
            (2, Act::Deed(Deed::Write), 0x69edd3ce3513baa6),
            (0, Act::Deed(Deed::Append), 0x6ce90f2b9175807d),
            (0, Act::Fuse, 0x2015fe1721d6ee06),
            (1, Act::Deed(Deed::Edit), 0x9b65ffd7b6333077),
        ],
    },
    Found {
        what: "what somebody saved right after the engine had put the file in place was taken for the engine's own, and lost",
        devices: 2,
        nature: 0x2291364dfaa10f85,
        calm: false,
        steps: &[
            (1, Act::Deed(Deed::BeginWriting), 0x3fc8251270c3614c),
            (0, Act::Deed(Deed::Write), 0x3ebd5dda2d7ad290),
            (1, Act::Deed(Deed::Write), 0xea5013f0317906),
            (1, Act::Deed(Deed::Twin), 0xc6859f7fa9bc20e6),
            (0, Act::Pass, 0x54c113b606ccaaf5),
            (0, Act::Intrude(Deed::SaveWithBackup), 0x5a32226f0c21de79),
            (1, Act::Deed(Deed::BeginWriting), 0x527e450cbf751b08),
            (1, Act::PassLong, 0xca9bff6d907cc4b3),
            (0, Act::Exchange, 0x8941db089d130d95),
        ],
    },
    Found {
        what: "an edit went to the kept files with the power, because the file was looked at only after it was moved there",
        devices: 4,
        nature: 0x693badf5235a390e,
        calm: false,
        steps: &[
            (3, Act::Deed(Deed::Write), 0xe60e84e8f3bb2451),
            (0, Act::Deed(Deed::MakeFolder), 0x1fb5aa9f927680c0),
            (3, Act::Deed(Deed::TurnFolders), 0xc60716eee5ab996a),
            (3, Act::Deed(Deed::Twin), 0x9d348907310bd3d7),
            (0, Act::Exchange, 0x73915a67028c0503),
            (0, Act::Pass, 0xab9f81b58e0b7045),
            (0, Act::Deed(Deed::Swap), 0x609fbd87ba2604b1),
            (0, Act::Deed(Deed::Save), 0xe8caa1f0cc809157),
            (3, Act::Fuse, 0xc76c6b4737aa8758),
            (0, Act::Pass, 0x8f5f73f692d97c92),
            (0, Act::Exchange, 0x249d938633d34abd),
            (3, Act::Deed(Deed::Edit), 0x4dceb2196b4857e),
            (3, Act::Deed(Deed::Write), 0x5d448e24de5d57ed),
        ],
    },
];
