"""Networks that tell people apart: aligned photographs of faces to embeddings, with weights from named sources."""

from voicestyle.face_networks.clip import ClipImageEncoder
from voicestyle.face_networks.dlib_resnet import DlibResNet, fetch_dlib_resnet
from voicestyle.face_networks.ir_se50 import IrSe50
from voicestyle.face_networks.mobileface import MobileFace, fetch_mobileface
from voicestyle.face_networks.network import FaceNetwork
from voicestyle.face_networks.npm_package import DEFAULT_CACHE
from voicestyle.face_networks.weight_files import fetch_lpips_linear, read_lpips_linear, read_vgg16

__all__ = [
    "DEFAULT_CACHE",
    "ClipImageEncoder",
    "DlibResNet",
    "FaceNetwork",
    "IrSe50",
    "MobileFace",
    "fetch_dlib_resnet",
    "fetch_lpips_linear",
    "fetch_mobileface",
    "read_lpips_linear",
    "read_vgg16",
]
