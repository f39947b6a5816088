"""Every word of the report, in English and in Chinese, side by side.

`WORDS` has what the report itself says. `KNOWN` has the English names that summaries contain (of splits, baselines, objectives …);
what is not there is shown as it is. Tasks and metrics bring their own titles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tunewright.errors import UserError
from tunewright.report.html import Html, text
from tunewright.runs.summary.facts import Title
from tunewright.runs.summary.stage import StageSummary

Language = Literal["en", "zh"]

LANGUAGES: dict[Language, str] = {"en": "en", "zh": "zh-CN"}

WORDS: dict[str, tuple[str, str]] = {
    # the plan
    "plan": ("Plan", "计划"),
    "plan_note": (
        "What this run was predicted to need before it began, and what it then took.",
        "运行开始前的预测，以及实际所用。",
    ),
    "plan_what": ("what", "项目"),
    "plan_predicted": ("predicted", "预测"),
    "plan_actual": ("actual", "实际"),
    "plan_error": ("error", "误差"),
    "plan_seconds": ("training", "训练时间"),
    "plan_memory": ("memory of the process", "进程内存"),
    "plan_tensors": ("of which tensors", "其中张量"),
    "plan_energy": ("energy", "能耗"),
    # the page
    "skip": ("Skip to the result", "跳到结果"),
    "contents": ("Contents", "目录"),
    "made_by": (
        "Made by Tunewright {version} from the files of this run.",
        "由 Tunewright {version} 根据本次运行的文件生成。",
    ),
    "one_file": (
        "This page is a single file: it loads nothing and runs no script.",
        "本页为单个文件：不加载任何外部内容，也不运行脚本。",
    ),
    "interval_note": (
        "Square brackets give 95 % intervals.",
        "方括号内为 95% 置信区间。",
    ),
    "colon": (": ", "："),
    "comma": (", ", "、"),
    "clause": (", ", "，"),
    "not_measured": ("not measured", "未测量"),
    "undefined": ("undefined", "无定义"),
    "points": ("points", "个百分点"),
    "figures": ("The figures as a table", "以表格查看数值"),
    "and_more": ("and {count} more", "另有 {count} 项"),
    # headline
    "title": ("{task} on {data}", "{data} 上的{task}"),
    "title_pretrain": ("Pretrained on {data}", "在 {data} 上预训练"),
    "title_unlabelled": ("Pretrained on {data}, without labels", "在 {data} 上预训练（无标签）"),
    "title_finetune": ("Fine-tuned on {data}", "在 {data} 上微调"),
    "title_both": ("Pretrained on {first}, fine-tuned on {last}", "在 {first} 上预训练，在 {last} 上微调"),
    "on_test_rows": ("{count} {split} rows of {data}", "{data} 的 {count} 行{split}数据"),
    "mean_of_seeds": ("mean of {count} seeds", "{count} 个随机种子的平均值"),
    "interval_is": ("95 % interval {interval}", "95% 区间 {interval}"),
    "lower_is_better": ("lower is better", "越低越好"),
    "baseline_better": (
        "Better than the best baseline, {name}, with {value}: the two intervals do not overlap.",
        "优于最好的基线“{name}”（{value}）：两个区间不重叠。",
    ),
    "baseline_unclear": (
        "Not clearly different from the best baseline, {name}, with {value}: the two intervals overlap.",
        "与最好的基线“{name}”（{value}）没有明确差别：两个区间重叠。",
    ),
    "baseline_worse": (
        "Worse than the best baseline, {name}, with {value}: the two intervals do not overlap.",
        "不如最好的基线“{name}”（{value}）：两个区间不重叠。",
    ),
    "baseline_unknown": (
        "The best baseline is {name}, with {value}; without intervals the difference cannot be judged.",
        "最好的基线是“{name}”（{value}）；没有区间，无法判断差别。",
    ),
    "no_baseline": ("No baseline was measured.", "没有测量基线。"),
    "not_evaluated": (
        "Not evaluated: nothing was measured on test rows in this stage.",
        "未评估：本阶段没有在测试数据上测量任何指标。",
    ),
    "last_loss": ("{split} loss after {count} epochs", "{count} 轮之后的{split}损失"),
    "target_reached": (
        "Target reached: {metric} {value}, required {wanted}",
        "达到目标：{metric} {value}，要求 {wanted}",
    ),
    "target_missed": (
        "Target missed: {metric} {value}, required {wanted}",
        "未达到目标：{metric} {value}，要求 {wanted}",
    ),
    "frozen_intact": ("Frozen layers are bit-identical to their source", "冻结的层与其来源逐比特相同"),
    "frozen_changed": ("Frozen layers have changed", "冻结的层发生了变化"),
    "better_than": ("Better than {name}: {difference}", "优于{name}：{difference}"),
    "worse_than": ("Worse than {name}: {difference}", "不如{name}：{difference}"),
    "no_difference": ("No real difference from {name}: {difference}", "与{name}没有真正的差别：{difference}"),
    # what was asked
    "asked": ("The task", "任务"),
    "asked_task": ("Task", "任务"),
    "asked_stages": ("Stages", "阶段"),
    "asked_target": ("Target", "目标值"),
    "asked_seeds": ("Seeds", "随机种子"),
    "no_target": ("none set", "未设定"),
    "recipe": ("The recipe", "配方"),
    "resolved": ("The recipe with every default filled in", "补全所有默认值的配方"),
    # data
    "data": ("Data", "数据"),
    "used_by": ("for {stages}", "用于{stages}"),
    "rows_used": ("{used} of {read} rows are used.", "共读取 {read} 行，使用 {used} 行。"),
    "all_rows_used": ("All {read} rows are used.", "读取的 {read} 行全部使用。"),
    "skipped": ("Skipped rows", "跳过的行"),
    "reason": ("Reason", "原因"),
    "rows": ("Rows", "行数"),
    "examples": ("Examples", "示例"),
    "fix": ("How to fix it", "如何修正"),
    "split_rule": ("Split", "划分"),
    "input": ("Input", "输入"),
    "target": ("Target", "目标"),
    "no_labels": ("none: the rows have no labels", "无：数据没有标签"),
    "classes": ("Classes", "类别"),
    "fingerprint": ("Fingerprint", "指纹"),
    # network
    "network": ("Network", "网络"),
    "network_size": (
        "{total} parameters, of which {trainable} are trained and {frozen} are frozen; {flops} floating-point operations per example.",
        "共 {total} 个参数，其中训练 {trainable} 个，冻结 {frozen} 个；每个样本 {flops} 次浮点运算。",
    ),
    "network_size_all": (
        "{total} parameters, all trained; {flops} floating-point operations per example.",
        "共 {total} 个参数，全部参与训练；每个样本 {flops} 次浮点运算。",
    ),
    "layers": ("Layers", "层"),
    "block": ("Block", "模块"),
    "kind": ("Kind", "类型"),
    "output_shape": ("Output shape", "输出形状"),
    "parameters": ("Parameters", "参数"),
    "flops": ("FLOPs", "浮点运算"),
    "state": ("Trained or frozen", "训练或冻结"),
    "trained": ("trained", "训练"),
    "frozen": ("frozen", "冻结"),
    "learning_rate": ("Learning rate", "学习率"),
    # training
    "training": ("Training", "训练"),
    "trained_for": (
        "{epochs} of {planned} epochs, {steps} steps in {time}, {speed} examples per second on {device}.",
        "共 {planned} 轮，训练 {epochs} 轮、{steps} 步，用时 {time}，在 {device} 上每秒 {speed} 个样本。",
    ),
    "best_weights": (
        "The weights of epoch {epoch} are kept, the best on validation rows: {metric} {value}.",
        "保留第 {epoch} 轮的权重，它在验证集上最好：{metric} {value}。",
    ),
    "last_weights": ("The weights of the last epoch are kept.", "保留最后一轮的权重。"),
    "objective": ("Objective", "目标函数"),
    "optimizer": ("Optimiser", "优化器"),
    "batch_size": ("Batch size", "批大小"),
    "batch_seconds": ("Seconds of audio per batch, at most", "每批音频的最大秒数"),
    "threads": ("CPU threads", "CPU 线程"),
    "ended": ("Stopped because", "结束原因"),
    "epoch": ("Epoch", "轮次"),
    "best_epoch": ("kept: epoch {epoch}", "保留：第 {epoch} 轮"),
    "loss": ("Loss", "损失"),
    "train_loss": ("training", "训练"),
    "valid_loss": ("validation", "验证"),
    "step_loss": ("single steps", "单步"),
    "valid_metric": ("{metric} on validation", "验证集上的{metric}"),
    "log_scale": ("logarithmic", "对数坐标"),
    "no_curves": ("No training curves were recorded.", "没有记录训练曲线。"),
    "at_epoch": ("epoch {epoch}: {value}", "第 {epoch} 轮：{value}"),
    # result
    "result": ("Result", "结果"),
    "result_on": (
        "Measured on {rows} {split} rows that were not used for training.",
        "在未参与训练的 {rows} 行{split}数据上测得。",
    ),
    "this_model": ("this model", "本模型"),
    "this_model_seed": ("this model, seed {seed}", "本模型，种子 {seed}"),
    "this_model_seeds": ("this model, mean of {count} seeds", "本模型，{count} 个种子的平均值"),
    "training_rows": ("{name} ({count} training rows)", "{name}（{count} 行训练数据）"),
    "off_scale": ("off the scale", "超出坐标范围"),
    "all_metrics": ("All metrics", "全部指标"),
    "metric": ("Metric", "指标"),
    "seeds_note": (
        "Each seed repeats the whole training; the small dots are the single results: {values}.",
        "每个种子都重复整个训练；小点为各次结果：{values}。",
    ),
    "comparisons": ("Compared on the same rows", "在相同数据行上的比较"),
    "difference": ("{metric}: difference", "{metric}：差值"),
    "difference_in_points": ("{metric}: difference in points", "{metric}：差值（百分点）"),
    "comparisons_note": (
        "This model minus the other one, by paired bootstrap. Where the interval contains 0, there is no real difference.",
        "本模型减去另一模型，采用配对自助法。区间包含 0 时，没有真正的差别。",
    ),
    "slices": ("Slices", "分组结果"),
    "slices_note": ("The line marks the value on all rows.", "竖线为全部数据上的值。"),
    "few_rows": ("few rows", "行数过少"),
    "slice_rows": ("{value} ({count} rows)", "{value}（{count} 行）"),
    # confusion
    "confusion": ("Confusion matrix", "混淆矩阵"),
    "confusion_note": (
        "Rows: the true class; columns: the predicted class. Blue is correct, orange is wrong; the stronger the colour, the "
        "larger the share of the class.",
        "行为真实类别，列为预测类别。蓝色为正确，橙色为错误；颜色越深，占该类的比例越大。",
    ),
    "right_class": ("true class", "真实类别"),
    "predicted_class": ("predicted class", "预测类别"),
    "confusion_cell": (
        "{target} predicted as {prediction}: {count} of {total} ({share})",
        "{target} 被预测为 {prediction}：{count} / {total}（{share}）",
    ),
    "confusion_pairs": ("Most frequent confusions", "最常见的混淆"),
    "no_confusions": ("No row was predicted as another class.", "没有任何一行被预测为其他类别。"),
    "show_matrix": ("The matrix of {count} classes", "{count} 个类别的矩阵"),
    "matrix_too_large": ("A matrix of {count} classes is too large to draw.", "{count} 个类别的矩阵过大，不予绘制。"),
    "right": ("correct", "正确"),
    "share_of_class": ("Share of the class", "占该类比例"),
    # several labels
    "by_label": ("Results by label", "逐标签结果"),
    "show_labels": ("The table of {count} labels", "{count} 个标签的表格"),
    "label": ("label", "标签"),
    "label_rows": ("rows with the label", "含该标签的行数"),
    "label_predicted": ("rows predicted", "预测的行数"),
    "label_precision": ("precision", "精确率"),
    "label_recall": ("recall", "召回率"),
    "label_f1": ("F1", "F1"),
    "label_ap": ("average precision", "平均精确率"),
    "threshold": ("best threshold", "最佳阈值"),
    "thresholds_effect": (
        "All figures are for a threshold of 1/2. With the thresholds in the last column, chosen on {split} rows, micro F1 "
        "changes from {micro} to {micro_after} and macro F1 from {macro} to {macro_after}.",
        "所有数值均采用阈值 1/2。若采用最后一列在{split}数据上选定的阈值，微平均 F1 由 {micro} 变为 {micro_after}，宏平均 F1 由"
        " {macro} 变为 {macro_after}。",
    ),
    "no_label": ("no label", "无标签"),
    # calibration
    "calibration": ("Calibration", "校准"),
    "calibration_note": (
        "On the diagonal, a confidence of 90 % is correct in 90 % of cases; below it the model is overconfident.",
        "在对角线上，90% 的置信度意味着 90% 的预测正确；低于对角线说明模型过度自信。",
    ),
    "calibration_result": (
        "Dividing the logits by the temperature {temperature}, fitted on {split} rows, changes the calibration error (ECE) from {before} to {after}.",
        "用在{split}数据上拟合的温度 {temperature} 缩放 logits 后，校准误差（ECE）由 {before} 变为 {after}。",
    ),
    "calibration_loss": ("The log loss changes from {before} to {after}.", "对数损失由 {before} 变为 {after}。"),
    "confidence": ("confidence", "置信度"),
    "share_right": ("share correct", "正确比例"),
    "before": ("as trained", "校准前"),
    "after": ("with temperature", "温度校准后"),
    "bin_title": (
        "{rows} rows, confidence {confidence}, correct {accuracy}",
        "{rows} 行，置信度 {confidence}，正确率 {accuracy}",
    ),
    # mistakes
    "mistakes": ("Worst mistakes", "最严重的错误"),
    "mistakes_note": (
        "The {count} test rows with the largest loss, the worst first.",
        "损失最大的 {count} 行测试数据，最差的在前。",
    ),
    "mistake_of": ("{target} predicted as {prediction}", "{target} 被预测为 {prediction}"),
    "mistake_off": ("{prediction} instead of {target}", "预测 {prediction}，实际 {target}"),
    "off_by": ("off by {error}", "误差 {error}"),
    "row_number": ("row {row}", "第 {row} 行"),
    "confidence_of": ("confidence {confidence}", "置信度 {confidence}"),
    "no_picture": ("no image", "无图片"),
    "more_mistakes": ("{count} more", "其余 {count} 条"),
    "more_columns": ("and {count} more columns", "另有 {count} 列"),
    "missing": ("missing", "缺失"),
    # tuning
    "tuning_title": ("Tuning {name}", "{name} 的调参"),
    "tuning_helped": ("Did it help?", "有帮助吗？"),
    "tuning_not_held": ("Not compared with the recipe as it is (--seeds 0).", "未与原配方比较（--seeds 0）。"),
    "tuning_best": (
        "Best on the validation rows: {metric} {value} in trial {trial}. The best of many trials is also lucky: only the "
        "comparison above says what it is worth.",
        "验证数据上的最佳值：第 {trial} 次试验，{metric} {value}。多次试验中的最佳值也有运气成分：只有上面的比较能说明它的价值"
        "。",
    ),
    "tuning_trials": ("The trials", "各次试验"),
    "tuning_counts": (
        "{complete} trials finished, {pruned} stopped early, {fail} interrupted and repeated.",
        "完成 {complete} 次，提前停止 {pruned} 次，中断后重做 {fail} 次。",
    ),
    "tuning_lines": (
        "Each line is a finished trial; the strongest is the best. Axes whose numbers span more than a factor of 15 are logarithmic.",
        "每条线是一次完成的试验，最醒目的是最佳。数值跨度超过 15 倍的轴为对数轴。",
    ),
    "tuning_all": ("All finished trials", "全部完成的试验"),
    "tuning_order": ("Finished trials, the best first", "完成的试验，最佳的在前"),
    "tuning_trial": ("trial", "试验"),
    "tuning_mattered": ("What mattered", "什么重要"),
    "tuning_setting": ("setting", "设置"),
    "tuning_share": ("share of the variance", "方差占比"),
    "tuning_anova": ("Functional ANOVA over the finished trials", "对完成的试验做函数方差分析"),
    "tuning_too_few": ("Too few trials for an analysis.", "试验太少，无法分析。"),
    # explanations
    "why": ("Explanations of answers", "对回答的解释"),
    "why_title": ("Why did the model answer this way?", "模型为什么这样回答？"),
    "why_note": (
        "Some test rows, the worst mistakes first where there are any.",
        "部分测试数据；如有错误，最严重的在前。",
    ),
    "why_key": (
        "Blue increases the explained number, orange decreases it; the stronger the colour, the larger the effect.",
        "蓝色使被解释的数值增大，橙色使其减小；颜色越深，作用越大。",
    ),
    "why_right": (" (correct: {target})", "（正确：{target}）"),
    "why_line": ("line {line}", "第 {line} 行"),
    "why_picture": ("the image", "图片"),
    "why_patches": ("the patches of the image, shaded by their scores", "按得分着色的图块"),
    "why_units": ("Input units and their scores", "输入单元及其得分"),
    "why_unit": ("unit", "单元"),
    "why_score": ("score", "得分"),
    "why_more": ("and {count} more with smaller scores", "另有 {count} 项，得分更小"),
    "why_view": (
        "A view: where attention goes, regardless of the answer.",
        "这只是一种视图：显示注意力的分布，与答案无关。",
    ),
    "why_unconverged": ("Not converged: the scores are approximate.", "未收敛：得分只是近似值。"),
    "why_unfaithful": (
        "Not faithful: random rankings do as well, so do not rely on this explanation.",
        "不忠实：随机排序的效果同样好，请不要依赖这个解释。",
    ),
    "why_checked": (
        "Removing the top-ranked units lowers {what} by {comprehensiveness}, more than {above} of random rankings; keeping "
        "them alone lowers it by {sufficiency}, less than {below}; deleting all units one by one does more than {deletion}.",
        "去掉排名最前的单元，{what}下降 {comprehensiveness}，超过 {above} 的随机排序；只保留这些单元，下降 {sufficiency}，小于 "
        "{below} 的随机排序；逐一删除全部单元，作用超过 {deletion} 的随机排序。",
    ),
    "why_how": (
        "{method}; explained: {what}; an absent unit is replaced by: {absent}.",
        "方法：{method}；被解释的量：{what}；缺失单元替换为：{absent}。",
    ),
    # few examples
    "privacy": ("Differential privacy", "差分隐私"),
    "privacy_said": (
        "(ε, δ)-differential privacy with ε = {epsilon} and δ = {delta} for each {unit} of {source}: whatever is concluded "
        "from the weights is at most e^ε times as probable as it would be without that {unit}, except with probability δ.",
        "对 {source} 的每个{unit}满足 (ε, δ)-差分隐私：ε = {epsilon}，δ = {delta}。除概率 δ 外，由权重得出任一结论的概率至多是"
        "没有该{unit}时的 e^ε 倍。",
    ),
    "privacy_again": ("By a second accountant (PRV): ε = {epsilon}.", "用另一种核算方法（PRV）：ε = {epsilon}。"),
    "privacy_composed": (
        "Composed over every stage that was trained on these rows, or may have been: {stages}.",
        "已对所有使用过（或可能使用过）这些行的阶段合并计算：{stages}。",
    ),
    "privacy_none_without": (
        "No privacy guarantee for any {unit} of {source}: the stage {by} was trained without privacy on rows that may be the same.",
        "对 {source} 的任何{unit}都没有隐私保证：阶段 {by} 在可能相同的行上进行了没有差分隐私的训练。",
    ),
    "privacy_none_unknown": (
        "No privacy guarantee for any {unit} of {source}: there is no record of what the starting model {by} was trained on.",
        "对 {source} 的任何{unit}都没有隐私保证：没有记录说明起始模型 {by} 用哪些数据训练。",
    ),
    "privacy_none_units": (
        "No privacy guarantee for any {unit} of {source}: the stage {by} protects other units of rows that may be the same.",
        "对 {source} 的任何{unit}都没有隐私保证：阶段 {by} 在可能相同的行上保护的是另一种单位。",
    ),
    "privacy_public": (
        "The pretraining data of the published model {name} is outside any guarantee.",
        "公开模型 {name} 的预训练数据不在任何保证之内。",
    ),
    "privacy_own": ("This stage alone:", "仅本阶段："),
    "privacy_epsilon": ("ε of this stage", "本阶段的 ε"),
    "privacy_delta": ("δ", "δ"),
    "privacy_units": ("units", "单位数"),
    "privacy_kept": (
        "Computed from the training rows without noise, and saved with the model:",
        "由训练数据计算且未加噪声，随模型一起保存：",
    ),
    "privacy_statistic": ("column '{column}': {count} {kind}", "列“{column}”：{count} 个{kind}"),
    "privacy_single": (", {count} of them in a single row", "，其中 {count} 个只出现在一行中"),
    "privacy_single_user": (", {count} of them of a single user", "，其中 {count} 个只属于一个用户"),
    "privacy_example": ("example", "样本"),
    "privacy_user": ("user", "用户"),
    "privacy_noise": ("noise, as a multiple of the clip norm", "噪声（裁剪范数的倍数）"),
    "privacy_clip": ("clip norm", "裁剪范数"),
    "privacy_rate": ("sampling rate per step", "每步采样率"),
    "privacy_steps": ("steps", "步数"),
    "privacy_not": ("It does not cover:", "不在保护之内的有："),
    "few_shot": ("Few examples", "小样本"),
    "few_reason": (
        "{count} examples per class, fewer than {few}, and the recipe does not say what is trained.",
        "每类 {count} 个样本，少于 {few} 个，且配方没有说明训练哪些部分。",
    ),
    "few_asked": ("Requested by the recipe; {count} examples per class.", "由配方指定；每类 {count} 个样本。"),
    "few_features": (
        "So the pretrained network stays frozen, and a logistic regression on its features is the last layer.",
        "因此预训练网络保持冻结，以其特征上的逻辑回归作为最后一层。",
    ),
    "few_pairs": (
        "Pairs of examples trained the encoder; a logistic regression on its features is the last layer.",
        "先用样本对训练编码器，再以其特征上的逻辑回归作为最后一层。",
    ),
    "few_strength": (
        "It has {features} features; its C is {strength}, chosen by {folds}-fold cross-validation.",
        "特征数为 {features}；C 为 {strength}，由 {folds} 折交叉验证选定。",
    ),
    "few_usual": (
        "It has {features} features; its C is {strength}, not chosen by cross-validation.",
        "特征数为 {features}；C 为 {strength}，未经交叉验证选定。",
    ),
    "few_log_loss": ("log loss", "对数损失"),
    "few_accuracy": ("accuracy", "准确率"),
    "few_scores": ("Cross-validated scores by C", "各 C 值的交叉验证得分"),
    "few_otherwise": (
        "For ordinary training, write in the recipe what is trained, such as tune: {{freeze: none}}.",
        "如需常规训练，请在配方中写明训练哪些部分，例如 tune: {{freeze: none}}。",
    ),
    # texts
    "texts": ("Texts", "文本"),
    "texts_tokens": ("training tokens", "训练词元数"),
    "texts_trained": ("of which trained", "其中参与训练"),
    "texts_examples": ("rows per epoch", "每轮行数"),
    "texts_max_length": ("maximum length in tokens", "最大长度（词元）"),
    "recordings": ("Recordings", "录音"),
    "recordings_examples": ("recordings per epoch", "每轮录音数"),
    "recordings_seconds": ("total length", "总时长"),
    "recordings_letters": ("characters in the alphabet", "字符表大小"),
    "recordings_cut": ("skipped: too short for their transcript", "因短于文字稿而跳过"),
    "texts_empty": ("texts without a known token", "不含已知词元的文本数"),
    "texts_cut": ("truncated texts", "被截断的文本数"),
    "vocabulary": ("vocabulary of the tokenizer", "分词器词表大小"),
    "bytes_per_token": ("bytes per token", "每词元字节数"),
    "unknown_rate": ("unknown tokens", "未知词元比例"),
    "longest": ("longest tokens found", "出现的最长词元"),
    "mix": ("What an epoch reads of each source", "每轮从各来源读取的数据"),
    "mix_source": ("source", "来源"),
    "mix_weight": ("weight", "权重"),
    "mix_rows": ("rows", "行数"),
    "mix_read": ("read per epoch", "每轮读取"),
    "mix_share": ("share", "占比"),
    # ranking
    "ranking_how": (
        "Every item is ranked for each user, without sampling; items that the user is known to have chosen in training and "
        "validation rows are removed from the list. Means and intervals are over users.",
        "为每位用户对全部物品排序，不做抽样；列表中去除该用户在训练与验证数据中已选过的物品。平均值与区间按用户计算。",
    ),
    "ranking_items": ("items ranked", "参与排序的物品"),
    "ranking_users": ("users", "用户数"),
    "ranking_asked": ("test rows", "测试行数"),
    "ranking_unknown": ("skipped test rows, of unknown users or items", "因用户或物品未知而跳过的测试行"),
    # speech
    "speech": ("Speech recognition", "语音识别"),
    "speech_seconds": ("test audio", "测试音频时长"),
    "speech_factor": ("real-time factor (seconds of computation per second of audio)", "实时率（每秒音频的计算秒数）"),
    "speech_without": ("word error rate without beam search", "不用束搜索的词错误率"),
    "speech_said": ("reference", "参考文本"),
    "speech_heard": ("recognised", "识别结果"),
    "speech_times": ("times", "次数"),
    "speech_nothing": ("nothing", "（无）"),
    "speech_confusions": ("Most frequent confusions of words", "最常见的词语混淆"),
    # other data
    "other": ("Before and after, on other data", "在其他数据上的前后对比"),
    "other_what": ("data and metric", "数据与指标"),
    "other_rows": ("rows", "行数"),
    "other_before": ("before this stage", "本阶段之前"),
    "other_now": ("after it", "本阶段之后"),
    "other_change": ("change", "变化"),
    "other_guesses": ("guessing", "猜测"),
    "other_better": (
        "{name}: better than before the stage: {metric} {difference}.",
        "{name}：优于本阶段之前：{metric} {difference}。",
    ),
    "other_worse": (
        "{name}: worse than before the stage: {metric} {difference}.",
        "{name}：不如本阶段之前：{metric} {difference}。",
    ),
    "other_even": (
        "{name}: no real difference from before the stage: {metric} {difference}.",
        "{name}：与本阶段之前没有真正的差别：{metric} {difference}。",
    ),
    "other_how": (
        "None of this data was trained on in this stage. Texts are read in overlapping windows; of the choices of a question, "
        "the one with the largest log probability is taken, or the largest per byte.",
        "本阶段未在这些数据上训练。文本以重叠窗口读取；选择题取对数概率最大的选项，或每字节对数概率最大的选项。",
    ),
    # samples
    "samples": ("Generated samples", "生成样例"),
    "samples_how": (
        "Generated after each epoch without a prompt and with the same random draws, so that differences come from training.",
        "每轮之后在无提示、随机数相同的条件下生成，差别即训练所致。",
    ),
    "sample_text": ("text", "文本"),
    # hint
    "hint": ("What would help next", "下一步建议"),
    # certificate
    "certificate": ("Freeze certificate", "冻结证明"),
    "passed": ("Passed", "通过"),
    "failed": ("Failed", "未通过"),
    "frozen_count": (
        "Frozen blocks that are bit-identical to their source: {identical} of {blocks} ({tensors} tensors, {parameters} "
        "parameters, BatchNorm statistics included).",
        "与来源逐比特相同的冻结模块：{identical} / {blocks}（共 {tensors} 个张量、{parameters} 个参数，含 BatchNorm 统计量）。",
    ),
    "trained_count": (
        "Trained parameter tensors that changed: {changed} of {tensors}.",
        "发生变化的训练参数张量：{changed} / {tensors}。",
    ),
    "all_blocks": ("Block by block", "逐模块查看"),
    "tensors": ("Tensors", "张量"),
    "finding": ("Finding", "结论"),
    "identical": ("identical", "相同"),
    "differs": ("changed although frozen", "已冻结却发生变化"),
    "all_changed": ("all changed", "全部变化"),
    "some_unchanged": ("unchanged: {names}", "没有变化：{names}"),
    "warnings": ("Warnings", "警告"),
    # environment, reproduction, sources
    "environment": ("Environment", "环境"),
    "python": ("Python", "Python"),
    "platform": ("System", "系统"),
    "processor": ("Processor", "处理器"),
    "cores": ("Cores", "核心数"),
    "memory": ("Memory", "内存"),
    "accelerators": ("Accelerators", "加速器"),
    "none": ("none", "无"),
    "packages": ("Packages", "软件包"),
    "git_commit": ("Git commit of the recipe's folder", "配方所在文件夹的 Git 提交"),
    "data_files": ("Data files", "数据文件"),
    "file": ("File", "文件"),
    "size": ("Size", "大小"),
    "sha256": ("SHA-256", "SHA-256"),
    "reproduce": ("How to reproduce this", "如何复现"),
    "reproduce_note": (
        "Run the recipe above in the folder that its data paths refer to. All random numbers follow from the seed; other "
        "versions, threads or hardware can change the last digits.",
        "请在数据路径所对应的文件夹中运行上面的配方。所有随机数都由种子决定；不同的版本、线程数或硬件可能改变末位数字。",
    ),
    "comment_install": ("the same versions", "相同的版本"),
    "comment_run": ("train, evaluate and report again", "重新训练、评估并生成报告"),
    "comment_evaluate": ("measure again, without training", "只重新评估，不训练"),
    "comment_predict": ("use the model", "使用模型"),
    "sources": ("Licences and citations of the data", "数据的许可与引用"),
    "licence": ("Licence", "许可"),
    "citation": ("Citation", "引用"),
    "not_stated": ("not stated", "未说明"),
}

KNOWN: dict[str, tuple[str, str]] = {
    # what privacy does not cover
    "validation and test rows, which choose the epoch and are measured": (
        "validation and test rows, which choose the epoch and are measured",
        "验证集与测试集的行：前者用于选择轮次，两者都被测量",
    ),
    "how many rows there are, and the fingerprint of the data": (
        "how many rows there are, and the fingerprint of the data",
        "行数与数据指纹",
    ),
    "other models that were trained on the same rows: each training spends again": (
        "other models that were trained on the same rows: each training spends again",
        "在相同数据上训练的其他模型：每次训练都会再次消耗隐私预算",
    ),
    "settings that were chosen by what trainings on these rows had shown, such as by tune, choose or lr-find": (
        "settings that were chosen by what trainings on these rows had shown, such as by tune, choose or lr-find",
        "根据在这些行上的训练结果选定的设置，例如由 tune、choose 或 lr-find 选定的",
    ),
    "statistic: categories": ("categories", "类别值"),
    "statistic: classes": ("classes", "目标类别"),
    "statistic: mean and deviation": ("numbers: mean and standard deviation", "数值：均值与标准差"),
    "statistic: bin edges": ("edges of bins", "分箱边界"),
    "statistic: vocabulary": ("tokens of a trained vocabulary", "训练得到的词表中的词元"),
    "statistic: letters": ("letters", "字母"),
    "statistic: word counts": ("word n-grams with their probabilities", "词 n 元组及其概率"),
    "the report's baselines, which learn from the training rows without privacy": (
        "the report's baselines, which learn from the training rows without privacy",
        "报告中的基线：它们在训练行上学习，不受差分隐私保护",
    ),
    "the training losses in metrics.jsonl and in the report": (
        "the training losses in metrics.jsonl and in the report",
        "metrics.jsonl 与报告中的训练损失",
    ),
    # what a plan's time is based on
    "measured here": ("timed on this machine", "在本机计时"),
    "operation by operation": ("timed operation by operation on this machine", "在本机逐个运算计时"),
    "roofline": ("estimated by size", "按规模估算"),
    # stages
    "pretrain": ("Pretrain", "预训练"),
    "finetune": ("Fine-tune", "微调"),
    # splits
    "train": ("training", "训练"),
    "valid": ("validation", "验证"),
    "test": ("test", "测试"),
    # baselines of speech, recommendation and questions
    "the commonest sentence": ("the most frequent sentence", "最常见的句子"),
    "popularity": ("the most popular items", "最热门的物品"),
    "item neighbours": ("item neighbours (ItemKNN)", "物品近邻（ItemKNN）"),
    "chance": ("chance", "随机猜测"),
    "the longest choice": ("the longest choice", "最长的选项"),
    "always the same place": ("always the same position", "总选同一位置"),
    # objectives
    "ctc": ("CTC", "CTC（连接时序分类）"),
    "bpr": ("BPR, pairwise ranking", "BPR（成对排序）"),
    "next_tokens": ("next-token prediction", "下一词元预测"),
    "cross_entropy": ("cross entropy", "交叉熵"),
    "binary_cross_entropy": ("binary cross entropy", "二元交叉熵"),
    "mse": ("mean squared error", "均方误差"),
    "masked": ("masked autoencoder", "掩码自编码器"),
    "denoising": ("denoising autoencoder", "去噪自编码器"),
    "masked_tokens": ("masked tokens", "掩码词元"),
    "logistic regression": ("logistic regression", "逻辑回归"),
    "contrastive": ("contrastive pairs", "对比样本对"),
    # how training ended
    "finished": ("all epochs done", "完成全部轮次"),
    "all epochs done": ("all epochs done", "完成全部轮次"),
    "early stopping": ("early stopping", "早停"),
    # baselines and controls
    "majority class": ("majority class", "多数类"),
    "class prior": ("class prior", "类别先验"),
    "pairs of tokens": ("pairs of tokens", "词元对"),
    "token frequencies": ("token frequencies", "词元频率"),
    "the model before this stage": ("the model before this stage", "本阶段之前的模型"),
    "the longer answer": ("the longer answer", "较长的回答"),
    "label prior": ("label prior", "标签先验"),
    "mean": ("mean", "平均值"),
    "median": ("median", "中位数"),
    "linear model on character n-grams": ("linear model on character n-grams", "字符 n 元组上的线性模型"),
    "linear model on raw inputs": ("linear model on raw inputs", "原始输入上的线性模型"),
    "the same network from random weights, nothing frozen": (
        "the same network from random weights, nothing frozen",
        "从随机权重训练、不冻结的同一网络",
    ),
    "the same head alone, on the raw inputs": ("the same head alone, on the raw inputs", "直接用于原始输入的同一头部"),
    # explanations
    "integrated gradients": ("integrated gradients", "积分梯度"),
    "Shapley values, sampled": ("Shapley values, sampled", "抽样的 Shapley 值"),
    "ablation": ("ablation", "逐一消融"),
    "attention roll-out": ("attention rollout", "注意力展开"),
    "the picture's median colour": ("the median colour of the image", "图片的中位颜色"),
    "the mean of the training rows, or no category": (
        "the mean of the training rows, or no category",
        "训练数据的平均值，或无类别",
    ),
    "the recording's quietest tenth of a second": (
        "the quietest tenth of a second of the recording",
        "录音中最安静的十分之一秒",
    ),
    "the mean of all embeddings": ("the mean of all embeddings", "全部词向量的平均值"),
    "an unknown value": ("an unknown value", "未知值"),
    "not chosen": ("not chosen", "未被选择"),
    "the predicted {}": ("the predicted {}", "{} 的预测值"),
    "the log odds of {}": ("the log odds of {}", "{} 的对数几率"),
    "log p of {}": ("log p of {}", "{} 的对数概率"),
    "log p of {} less that of {} as the next token": (
        "log p of {} less that of {} as the next token",
        "下一个词元为 {} 与为 {} 的对数概率之差",
    ),
    "log p of {} among all items": ("log p of {} among all items", "{} 在所有物品中的对数概率"),
    "{}, the best of what was not chosen": ("{}, the best of what was not chosen", "{}，未选择物品中的最佳者"),
    "{} comes next, {}; {}, {}": ("{} comes next, {}; {}, {}", "下一个词元是 {}，{}；{}，{}"),
    # hints
    "more data": ("more data", "更多数据"),
    "more capacity": ("more capacity", "更大的网络"),
    "more regularization": ("more regularisation", "更强的正则化"),
    "longer training": ("longer training", "更长的训练"),
    "unknown": ("not known", "未知"),
    "nothing obvious": ("nothing obvious", "没有明显的改进方向"),
}


def report_language(name: str) -> Language:
    """Raises UserError: no page is written in this language."""
    language = next((known for known in get_args(Language) if known == name), None)
    if language is None:
        known = ", ".join(get_args(Language))
        raise UserError(
            "there are no pages in this language", place="--lang", found=name, expected=known, fix="--lang en"
        )
    return language


@dataclass(frozen=True)
class Words:
    """The words of one language."""

    language: Language

    def __call__(self, key: str, **values: object) -> str:
        """A sentence or label as plain text, its {names} replaced."""
        return WORDS[key][self._column].format(**values)

    def html(self, key: str, **values: object) -> Html:
        """The same as markup, in which the values may be elements."""
        return Html(text(WORDS[key][self._column]).format(**{name: text(value) for name, value in values.items()}))

    def known(self, name: str) -> str:
        """An English name that a summary contains, in the page's language."""
        return KNOWN[name][self._column] if name in KNOWN else name

    def title(self, title: Title) -> str:
        """The title of a task or a metric."""
        return title.en if self.language == "en" else title.zh

    def task(self, summary: StageSummary) -> str:
        """The title of a stage's task; of one of which only the name is known, that."""
        return summary.task if summary.task_facts is None else self.title(summary.task_facts.title)

    def knows(self, name: str) -> bool:
        return name in KNOWN

    @property
    def _column(self) -> int:
        return 0 if self.language == "en" else 1
