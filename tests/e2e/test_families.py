"""One small network of every family that timm lists: checked, trained for a step, and asked for a bank."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm

from distill.evaluation.latency import measure_latency
from distill.models import check_network
from distill.pipeline import Options, finetune_teacher
from distill.pipeline.banks import build_bank
from distill.recipe import Recipe, parse_recipe
from distill.runs import RunFolder
from distill.teaching import build
from distill.teaching.bank import Bank

MADE_WITH = "1.0.31"  # the timm whose families these are
NETWORKS = """
beit=beit_base_patch16_224 byoanet=lambda_resnet26t byobnet=test_byobnet cait=cait_xxs24_224 coat=coat_tiny
convit=convit_tiny convmixer=convmixer_768_32 convnext=test_convnext cpubone=cpubone_nano
crossvit=crossvit_tiny_240 csatv2=csatv2 cspnet=cs3darknet_focus_s cspnext=cspnext_tiny davit=davit_tiny
deepseek_vit=deepseek_vit_412m deit=deit_tiny_patch16_224 densenet=densenet121 dla=dla46x_c dpn=dpn48b
edgenext=edgenext_xx_small efficientformer=efficientformer_l1 efficientformer_v2=efficientformerv2_s0
efficientnet=test_efficientnet efficientvim=efficientvim_m1 efficientvit_mit=efficientvit_b0
efficientvit_msra=efficientvit_m0 eva=vit_tiny_patch16_dinov3_qkvb fasternet=fasternet_t0 fastvit=fastvit_t8
focalnet=focalnet_tiny_srf gcvit=gcvit_xxtiny gemma4_vit=gemma4_vit_167m ghostnet=ghostnet_050
hardcorenas=hardcorenas_b hgnet=hgnetv2_b0 hiera=hiera_tiny_224 hieradet_sam2=sam2_hiera_tiny
hrnet=hrnet_w18_small iformer=iformer_t inception_next=inception_next_atto
inception_resnet_v2=inception_resnet_v2 inception_v3=inception_v3 inception_v4=inception_v4
lcnetv2=lcnetv2_small levit=levit_128s lowformer=lowformer_b0 mambaout=test_mambaout maxxvit=test_coatnet
metaformer=poolformerv2_s12 mlp_mixer=gmlp_ti16_224 mobilenetv3=lcnet_035 mobilenetv5=mobilenetv5_base
mobilevit=mobilevit_xxs mvitv2=mvitv2_tiny naflexvit=naflexvit_base_patch16_parfac_gap nasnet=nasnetalarge
nest=nest_tiny nextvit=nextvit_small nfnet=test_nfnet pit=pit_ti_224 pnasnet=pnasnet5large pvt_v2=pvt_v2_b0
qwen3_vit=qwen3_vit_88m rdnet=rdnet_tiny regnet=regnetx_002 repghost=repghostnet_050 repvit=repvit_m1
res2net=res2next50 resnest=resnest14d resnet=test_resnet resnetv2=resnetv2_18 rexnet=rexnet_100
selecsls=selecsls42 senet=legacy_seresnet18 sequencer=sequencer2d_s shvit=shvit_s1 sknet=skresnet18
starnet=starnet_s050 swiftformer=swiftformer_xs swin_transformer=swin_tiny_patch4_window7_224
swin_transformer_v2=swinv2_tiny_window16_256 swin_transformer_v2_cr=swinv2_cr_tiny_224 tiny_vit=tiny_vit_5m_224
tnt=tnt_s_legacy_patch16_224 tresnet=tresnet_m twins=twins_svt_small vgg=vgg11 visformer=visformer_tiny
vision_transformer=test_vit vision_transformer_hybrid=vit_tiny_r_s16_p8_224
vision_transformer_relpos=test_vit_relpos vision_transformer_sam=samvit_base_patch16_224
vitamin=vitamin_small_224 volo=volo_d1_224 vovnet=ese_vovnet19b_slim_dw xception=legacy_xception
xception_aligned=xception41p xcit=xcit_nano_12_p16_224
"""
SIDES = {
    "crossvit": 240,
    "csatv2": 64,
    "deepseek_vit": 28,
    "efficientformer": 224,
    "gemma4_vit": 48,
    "inception_resnet_v2": 96,
    "inception_v3": 96,
    "inception_v4": 96,
}  # all others take 32 pixels
SHALLOW = ("deepseek_vit", "gemma4_vit", "naflexvit", "qwen3_vit", "vision_transformer_sam")
"""Families without a small member: two of their blocks are all that 16 or 24 alike would show."""
FAMILIES = dict(entry.split("=") for entry in NETWORKS.split())
QUICK = ("efficientnet", "resnet", "vision_transformer")
CASES = [pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in sorted(FAMILIES)]


def _recipe(name: str, side: int, *, role: str) -> Recipe:
    taught = "teacher: {run: family}\nobjective: {kind: kd}\n" if role == "student" else ""
    return parse_recipe(
        f"name: {'family' if role == 'teacher' else 'student'}\nrole: {role}\n{taught}"
        f"data: {{name: synthetic, image_size: {side}, limit: 8, test_limit: 10, val_fraction: 0}}\n"
        f"model: {{source: timm, name: {name}, weights: none, input_size: {side}, max_params: 1000000000}}\n"
        "optim: {name: sgd, lr: 0.001, momentum: 0.0, nesterov: false}\n"
        "train: {epochs: 1, batch_size: 8, precision: fp32}\n",
        source="test",
    )


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runs folder that is gone afterwards: pytest keeps what tests leave, and these are gigabytes."""
    brief = partial(measure_latency, batch_sizes=(1,), seconds_per_model=0.01)
    monkeypatch.setattr(build, "measure_latency", brief)  # how fast it is, is not asked here
    yield tmp_path / "runs"
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("family", CASES)
@pytest.mark.filterwarnings("default")  # timm's own, of some families
def test_a_network_of_every_family(family: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, side = FAMILIES[family], SIDES.get(family, 32)
    if name not in timm.list_models(module=family):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    if family in SHALLOW:
        make = timm.create_model
        shallow = partial(make, depth=2)
        monkeypatch.setattr(timm, "create_model", lambda own, **how: (shallow if own == name else make)(own, **how))
    recipe, options = _recipe(name, side, role="teacher"), Options(runs_dir=runs, device="cpu", threads=1)
    params = check_network(recipe, 10)

    result = finetune_teacher(recipe, options=options)
    run = RunFolder(result.run)
    assert (run.info.extra["params"], (run.info.data or {})["train"]) == (params, 8)
    assert len(run.metrics()) == 1

    stored = build_bank(_recipe("resnet10t", side, role="student"), views=1, options=options)
    bank = Bank.open(Path(stored.path))
    answers = np.asarray(bank.view(0), np.float32)
    assert answers.shape == (8, 10)
    assert np.isfinite(answers).all()


def test_the_table_names_every_family() -> None:
    if timm.__version__ != MADE_WITH:
        pytest.skip(f"made with timm {MADE_WITH}")
    assert set(FAMILIES) == set(timm.list_modules())
    assert [name for family, name in FAMILIES.items() if not timm.models.is_model_in_modules(name, [family])] == []
    assert set(SIDES) < set(FAMILIES)
